# The three programs, their manual pages and completions, and the units of deploy/systemd for several validators. Needs the
# Rust of rust-toolchain.toml or a newer one.
{
  lib,
  rustPlatform,
  installShellFiles,
}:

rustPlatform.buildRustPackage {
  pname = "baton";
  version = (lib.importTOML ../../Cargo.toml).workspace.package.version;

  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;
  cargoBuildFlags = [
    "-p"
    "batond"
  ];
  # They need namespaces, ports and other programs.
  doCheck = false;

  nativeBuildInputs = [ installShellFiles ];
  postInstall = ''
    $out/bin/baton man --dir man
    installManPage man/*
    for shell in bash zsh fish; do
      $out/bin/baton completions $shell > baton.$shell
    done
    installShellCompletion baton.bash baton.fish --zsh --name _baton baton.zsh
    bash deploy/systemd/instances $out/lib/systemd/system
    substituteInPlace $out/lib/systemd/system/*.service --replace-fail /usr/bin/baton $out/bin/baton
  '';

  meta = {
    description = "Several hosts share one validator identity, and exactly one of them signs";
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "baton";
    platforms = lib.platforms.linux;
  };
}
