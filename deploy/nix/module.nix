# services.baton: a coordinator for each validator of this host. docs/nixos.md shows one.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkIf mkOption types;
  cfg = config.services.baton;
  toml = pkgs.formats.toml { };

  # Every key of baton.toml, as the programs know them.
  keys = map (key: key // { at = lib.splitString "." key.path; }) (import ./options.nix);

  # What the package's units take for granted.
  defaults = name: {
    "member.state_dir" = "/var/lib/baton/${name}";
    "member.run_dir" = "/run/baton/${name}";
  };

  typeOf =
    key:
    {
      string = types.str;
      integer = types.int;
      boolean = types.bool;
      list = types.listOf types.anything;
      table = types.attrsOf types.anything;
    }
    .${key.type};

  leaf =
    name: key:
    mkOption {
      type = types.nullOr (typeOf key);
      default = (defaults name).${key.path} or null;
      example = key.example;
      description = "${key.says}. Without it: ${key.absent}.";
    };

  # Sections are submodules, lists of tables are lists of submodules.
  optionsFor =
    name: keys:
    let
      below = map (key: key // { at = builtins.tail key.at; });
      option =
        head: under:
        let
          sub = types.submodule { options = optionsFor name (below under); };
          isList = lib.hasSuffix "[]" head;
        in
        lib.nameValuePair (lib.removeSuffix "[]" head) (
          if (builtins.head under).at == [ head ] then
            leaf name (builtins.head under)
          else if isList then
            mkOption {
              type = types.nullOr (types.listOf sub);
              default = null;
              description = "A list of tables.";
            }
          else
            mkOption {
              type = types.nullOr sub;
              default = null;
              description = "A section.";
            }
        );
    in
    lib.mapAttrs' option (lib.groupBy (key: builtins.head key.at) keys);

  # What nobody has set is not written.
  said =
    value:
    if builtins.isAttrs value then
      lib.filterAttrs (_: inner: inner != null) (lib.mapAttrs (_: said) value)
    else if builtins.isList value then
      map said value
    else
      value;

  validator =
    { name, ... }:
    {
      options.settings = mkOption {
        type = types.submodule { options = optionsFor name keys; };
        default = { };
        description = "baton.toml of this validator: the keys of docs/configuration.md.";
      };
    };

  homeOf = validator: if validator.settings.chain == null then null else validator.settings.chain.home;
in
{
  options.services.baton = {
    package = mkOption {
      type = types.package;
      default = pkgs.baton;
      description = "The programs and their units.";
    };
    validators = mkOption {
      type = types.attrsOf (types.submodule validator);
      default = { };
      description = "A coordinator for each, by any name; its unit is baton@NAME.";
    };
  };

  config = mkIf (cfg.validators != { }) {
    environment.systemPackages = [ cfg.package ];
    environment.etc = lib.mapAttrs' (
      name: validator:
      lib.nameValuePair "baton/${name}/baton.toml" {
        source = toml.generate "baton-${name}.toml" (said validator.settings);
      }
    ) cfg.validators;

    users.groups.baton = { };
    users.users.baton = {
      isSystemUser = true;
      group = "baton";
      home = "/var/lib/baton";
      description = "baton coordinator";
    };
    systemd.tmpfiles.rules = lib.mapAttrsToList (name: _: "d /etc/baton/${name}/keys 0700 baton baton -") cfg.validators;

    # The units are those of deploy/systemd, and this adds to them.
    systemd.packages = [ cfg.package ];
    systemd.services = lib.mkMerge (
      lib.mapAttrsToList (
        name: validator:
        let
          home = homeOf validator;
          writes = mkIf (home != null) {
            serviceConfig.ReadWritePaths = [ home ];
            unitConfig.RequiresMountsFor = [ home ];
          };
        in
        {
          "baton@${name}" = lib.mkMerge [
            {
              overrideStrategy = "asDropin";
              wantedBy = [ "multi-user.target" ];
              # A holder hands over first.
              restartTriggers = [ config.environment.etc."baton/${name}/baton.toml".source ];
            }
            writes
          ];
          "baton-fence@${name}" = lib.mkMerge [
            {
              overrideStrategy = "asDropin";
              # Its stop would end the chain node.
              restartIfChanged = false;
            }
            writes
          ];
        }
      ) cfg.validators
    );
  };
}
