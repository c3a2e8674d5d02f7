#!/usr/bin/env python3
"""kubernetes_schemas.py WHEEL VERSION FOLDER

Unpacks the JSON schemas of one Kubernetes version from the wheel of PyPI's kubernetes-validate into FOLDER, in the
form kubeconform reads offline: without "$id", which would send its relative references to the network.
"""
import json
import os
import sys
import zipfile


def main(wheel, version, folder):
    prefix = f"kubernetes_validate/kubernetes-json-schema/{version}-local-strict/"
    os.makedirs(folder)
    count = 0
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.startswith(prefix) or not name.endswith(".json"):
                continue
            schema = json.loads(archive.read(name))
            schema.pop("$id", None)
            text = json.dumps(schema).replace('"/api/_definitions.json#', '"_definitions.json#')
            with open(os.path.join(folder, os.path.basename(name)), "w") as file:
                file.write(text)
            count += 1
    if not count:
        sys.exit(f"{wheel} has no schemas of Kubernetes {version}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
