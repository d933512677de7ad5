{
  description = "baton: several hosts share one validator identity, and exactly one of them signs";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      each = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: rec {
        baton = pkgs.callPackage ./package.nix { };
        default = baton;
      });
      overlays.default = final: _: { baton = final.callPackage ./package.nix { }; };
      nixosModules.default =
        { pkgs, lib, ... }:
        {
          imports = [ ./module.nix ];
          services.baton.package = lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.baton;
        };
    };
}
