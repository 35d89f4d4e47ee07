"""Whether config/ has a profile, data set, method or size, before a kernel starts for a notebook.

The library checks everything, but loads PyTorch. Here only the names in config/*.yaml are read.
"""

from pathlib import Path

import yaml

from wiseale_tools import CallError


def refuse_unknown(what, name, place, there):
    """`CallError` unless a name is one of those that are there."""
    if name not in there:
        raise CallError(f"unknown {what} {name!r}{place} {', '.join(there)}")


def read_layers(folder, profile):
    """What a profile says and, after it, those that it is based on."""
    layers = {}
    while profile and profile not in layers:
        layers[profile] = yaml.safe_load((folder / f"{profile}.yaml").read_text(encoding="utf-8"))
        profile = layers[profile].get("base")
    return list(layers.values())


def profile_methods(folder, profile):
    """The data sets of a profile, each with the names of its methods, in the order of the library."""
    methods = {}
    for layer in reversed(read_layers(folder, profile)):
        for dataset, block in layer.items():
            if dataset != "base":
                methods[dataset] = methods.get(dataset, {}) | block.get("methods", {})
    return {
        dataset: [name for name in found if found[name] is not None] for dataset, found in methods.items()
    }


def check_names(notebook, values):
    """`CallError` if a notebook of the project is given a name that config/ does not have.

    `values` are all its parameters. A damaged file is left to the library, which says what is wrong with it.
    """
    place = Path(notebook).resolve().parent
    config = place.parent / "config"
    if place.name != "nbs" or not config.is_dir():
        return
    try:
        if "size" in values:
            sizes = yaml.safe_load((config / "studies.yaml").read_text(encoding="utf-8"))
            refuse_unknown("size", values["size"], "; the sizes are", sizes)
        if "profile" in values:
            check_run(config, values)
    except CallError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        return


def check_run(config, values):
    """Profile, data set and method, as far as the notebook has them."""
    profile = values["profile"]
    profiles = sorted(path.stem for path in config.glob("*.yaml") if path.stem != "studies")
    refuse_unknown("profile", profile, "; the profiles are", profiles)
    methods, dataset = profile_methods(config, profile), values.get("dataset")
    if dataset is None:
        return
    refuse_unknown("data set", dataset, f"; profile {profile!r} has", methods)
    if "method" in values:
        place = f" for {dataset}; profile {profile!r} has"
        refuse_unknown("method", values["method"], place, methods[dataset])
