"""Checks objects of Kubernetes: kubernetes.py FILE… Each object against the schema of its kind, in which unknown fields are wrong."""

import sys

import kubernetes_validate
import yaml

VERSION = "1.34"

wrong = []
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        for document in yaml.safe_load_all(file):
            name = f"{path}: {document['kind']} {document['metadata']['name']}"
            try:
                kubernetes_validate.validate(document, VERSION, strict=True)
            except Exception as error:
                wrong.append(f"{name}: {error}")
print("\n".join(wrong), file=sys.stderr)
sys.exit(1 if wrong else 0)
