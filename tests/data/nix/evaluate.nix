# Evaluates deploy/nix/module.nix without nixpkgs: of its library and of the module system what that file uses, and no more.
# The result is what the configuration of a host comes to; `toml` files stay attribute sets.
{ validators }:

let
  inherit (builtins) attrNames elemAt filter foldl' hasAttr head isAttrs isBool isInt isList isString listToAttrs mapAttrs;
  length = builtins.stringLength;

  option = args: { _type = "option"; } // args;
  merge =
    a: b:
    a
    // mapAttrs (name: value: if hasAttr name a && isAttrs a.${name} && isAttrs value then merge a.${name} value else value) b;

  lib = rec {
    mkOption = option;
    mkIf = condition: value: if condition then value else { };
    mkMerge = foldl' merge { };
    nameValuePair = name: value: { inherit name value; };
    mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    filterAttrs = f: set: listToAttrs (map (name: { inherit name; value = set.${name}; }) (filter (name: f name set.${name}) (attrNames set)));
    groupBy = builtins.groupBy;
    hasSuffix = suffix: text: length text >= length suffix && builtins.substring (length text - length suffix) (length suffix) text == suffix;
    removeSuffix = suffix: text: if hasSuffix suffix text then builtins.substring 0 (length text - length suffix) text else text;
    splitString = separator: text: filter isString (builtins.split (builtins.replaceStrings [ "." ] [ "\\." ] separator) text);
    inherit (builtins) mapAttrs;

    types = {
      str = { name = "string"; read = _: value: if isString value then value else throw "not a string"; };
      int = { name = "integer"; read = _: value: if isInt value then value else throw "not an integer"; };
      bool = { name = "boolean"; read = _: value: if isBool value then value else throw "not a boolean"; };
      package = { name = "package"; read = _: value: value; };
      anything = { name = "anything"; read = _: value: value; };
      nullOr = type: { name = "null or ${type.name}"; read = at: value: if value == null then null else type.read at value; };
      listOf = type: {
        name = "list of ${type.name}";
        read = at: value: if isList value then map (type.read at) value else throw "${at} is not a list";
      };
      attrsOf = type: { name = "attributes of ${type.name}"; read = at: mapAttrs (name: type.read "${at}.${name}"); };
      submodule = module: {
        name = "submodule";
        read = at: value:
          let
            name = elemAt (builtins.match "(.*\\.)?([^.]*)" at) 1;
            made = if builtins.isFunction module then module { inherit name; } else module;
          in
          evaluate at made.options value;
      };
    };
  };

  # The options with what was set, or their defaults; what is no option is refused.
  evaluate =
    at: options: set:
    let
      unknown = filter (name: !(hasAttr name options)) (attrNames set);
      value =
        name: declared:
        if declared ? _type then
          declared.type.read "${at}.${name}" (if hasAttr name set then set.${name} else declared.default)
        else
          evaluate "${at}.${name}" declared (set.${name} or { });
    in
    if unknown != [ ] then throw "the option `${at}.${head unknown}' does not exist" else mapAttrs value options;

  pkgs = {
    baton = "/nix/store/baton";
    formats.toml = _: { type = lib.types.anything; generate = _: value: value; };
  };

  module = import ../../../deploy/nix/module.nix { inherit config lib pkgs; };
  config = {
    services.baton = evaluate "services.baton" module.options.services.baton { inherit validators; };
    environment.etc = module.config.environment.etc or { };
  };
in
module.config
