"""The manifests of deploy/kubernetes, held against Kubernetes' own schemas and what each of them refers to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
yaml = pytest.importorskip("yaml")
FOLDER = Path(__file__).resolve().parents[2] / "deploy/kubernetes"
VERSION = "1.33"


def listed() -> list[str]:
    return list(yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"])


def manifests() -> list[Any]:
    return [each for name in listed() for each in yaml.safe_load_all((FOLDER / name).read_text())]


def of_kind(kind: str) -> list[Any]:
    return [each for each in manifests() if each["kind"] == kind]


def pods() -> list[Any]:
    return [each["spec"]["template"] for each in of_kind("StatefulSet") + of_kind("Deployment")]


def test_kustomize_has_every_manifest_of_the_folder() -> None:
    assert sorted(listed()) == sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")


@pytest.mark.parametrize("manifest", manifests(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_a_manifest_is_valid_to_the_last_field(manifest: Any) -> None:
    kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_every_pod_fits_the_restricted_standard_that_its_namespace_enforces() -> None:
    (namespace,) = of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pods():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert not spec["automountServiceAccountToken"]
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"].keys() == {"cpu", "memory"}


def test_what_a_manifest_refers_to_is_there() -> None:
    components = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods()}
    (stateful,), (service,), (scaler,) = (
        of_kind(kind) for kind in ("StatefulSet", "Service", "HorizontalPodAutoscaler")
    )
    assert service["spec"]["selector"]["app.kubernetes.io/component"] in components
    assert stateful["spec"]["serviceName"] == service["metadata"]["name"]
    assert scaler["spec"]["scaleTargetRef"]["name"] in {each["metadata"]["name"] for each in of_kind("Deployment")}
    for pod in pods():
        volumes = {each["name"] for each in pod["spec"]["volumes"]} | {"state"}
        assert {mount["name"] for each in pod["spec"]["containers"] for mount in each["volumeMounts"]} <= volumes
