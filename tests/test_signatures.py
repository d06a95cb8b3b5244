"""Signatures: whose an artifact is, checked by loaders, by the shell and by stores that demand it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tsdistill as td
from tests.retraining import FIRST, job, without_controls, write_csv
from tests.tampering import flip, rewrite
from tsdistill import artifacts, runtime
from tsdistill.artifacts import sign
from tsdistill.cli import main
from tsdistill.errors import ArtifactError, ConfigError, UnsupportedError
from tsdistill.retrain import rollback, run_job
from tsdistill.retrain.store import MARK, Store
from tsdistill.signatures import checker, verify_signature
from tsdistill.testing import toy_signature

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


def write_keys(folder: Path, name: str, key: Any = None, password: bytes | None = None) -> None:
    """`name`.pem and `name`.pub.pem."""
    key = key or ed25519.Ed25519PrivateKey.generate()
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    )
    (folder / f"{name}.pub.pem").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of two people, a deployed and a trainable model signed by the first."""
    folder = tmp_path_factory.mktemp("signed")
    for name in ("ours", "theirs"):
        write_keys(folder, name)
    forecaster = td.models.SeasonalNaiveConfig(period=24).build(toy_signature())
    for name, model in (("deployed", td.export(forecaster)), ("trainable", forecaster)):
        td.save(model, folder / name)
        sign(folder / name, folder / "ours.pem")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(made, tmp_path / "place"))


def loaders(folder: Path) -> list[Callable[[Path, Any], object]]:
    """Everything that takes a public key."""
    general: list[Callable[[Path, Any], object]] = [
        lambda path, key: td.load(path, public_key=key),
        lambda path, key: artifacts.verify(path, public_key=key),
        verify_signature,
    ]
    if folder.name == "deployed":
        general += [
            lambda path, key: runtime.load(path, public_key=key),
            lambda path, key: runtime.verify(path, public_key=key),
        ]
    return general


@pytest.mark.parametrize("name", ["deployed", "trainable"])
def test_what_is_signed_loads_with_the_key_and_without(name: str, place: Path) -> None:
    folder = place / name
    for load in loaders(folder):
        for key in (place / "ours.pub.pem", str(place / "ours.pub.pem"), (place / "ours.pub.pem").read_bytes()):
            load(folder, key)
    assert td.load(folder).config.kind == "seasonal-naive"
    assert artifacts.verify(folder)["unlisted"] == []
    (folder / "golden.safetensors").unlink(missing_ok=True)
    assert len(verify_signature(folder, place / "ours.pub.pem")) == 32


def unsigned(folder: Path) -> None:
    (folder / "manifest.sig").unlink()


def changed(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["metrics"].update(mse=0.0))


def exchanged(folder: Path) -> None:
    """Another model's signature."""
    other = "trainable" if folder.name == "deployed" else "deployed"
    shutil.copy(folder.parent / other / "manifest.sig", folder / "manifest.sig")


def signed_by_others(folder: Path) -> None:
    sign(folder, folder.parent / "theirs.pem")


def renamed(folder: Path) -> None:
    """Signed by others, with our fingerprint on it."""
    fingerprint = (folder / "manifest.sig").read_text().split()[1]
    sign(folder, folder.parent / "theirs.pem")
    _, _, signature = (folder / "manifest.sig").read_text().split()
    (folder / "manifest.sig").write_text(f"ed25519 {fingerprint} {signature}\n")


def without_context(folder: Path) -> None:
    """A signature over the bare manifest."""
    import base64

    key: Any = serialization.load_pem_private_key((folder.parent / "ours.pem").read_bytes(), None)
    _, fingerprint, _ = (folder / "manifest.sig").read_text().split()
    signature = base64.b64encode(key.sign((folder / "manifest.json").read_bytes())).decode()
    (folder / "manifest.sig").write_text(f"ed25519 {fingerprint} {signature}\n")


def linked(folder: Path) -> None:
    shutil.move(folder / "manifest.sig", folder.parent / "elsewhere.sig")
    (folder / "manifest.sig").symlink_to(folder.parent / "elsewhere.sig")


def junk(folder: Path) -> None:
    (folder / "manifest.sig").write_bytes(b"\0" * 99)


def too_much(folder: Path) -> None:
    (folder / "manifest.sig").write_bytes(b" " * 2**25)


def a_folder(folder: Path) -> None:
    unsigned(folder)
    (folder / "manifest.sig").mkdir()


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no signature": (unsigned, "has no signature"),
    "another manifest": (changed, "does not belong"),
    "another model's": (exchanged, "does not belong"),
    "another key's": (signed_by_others, "was signed with the key"),
    "another key's as ours": (renamed, "does not belong"),
    "made for another purpose": (without_context, "does not belong"),
    "a link": (linked, "link"),
    "junk": (junk, "no signature of tsdistill"),
    "too much": (too_much, "bytes"),
    "a folder": (a_folder, "regular file"),
}


@pytest.mark.parametrize("name", ["deployed", "trainable"])
@pytest.mark.parametrize("case", TAMPERED)
def test_what_is_not_signed_by_the_owner_is_refused(case: str, name: str, place: Path) -> None:
    tamper, words = TAMPERED[case]
    tamper(place / name)
    for load in loaders(place / name):
        with pytest.raises(ArtifactError, match=f"not to be trusted: .*{words}"):
            load(place / name, place / "ours.pub.pem")
    td.load(place / name)  # without a key nothing is demanded


def test_a_changed_file_is_refused_and_not_signed(place: Path) -> None:
    flip(place / "deployed", "model.onnx")
    with pytest.raises(ArtifactError, match=r"model\.onnx must have the digest"):
        runtime.load(place / "deployed", public_key=place / "ours.pub.pem")
    with pytest.raises(ArtifactError, match=r"model\.onnx must have the digest"):
        sign(place / "deployed", place / "ours.pem")


def test_saving_again_removes_the_signature(place: Path) -> None:
    td.save(td.load(place / "trainable"), place / "trainable")
    assert not (place / "trainable" / "manifest.sig").exists()


def test_keys_that_are_none_are_one_clear_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_keys(place, "curve", ec.generate_private_key(ec.SECP256R1()))
    write_keys(place, "locked", password=b"geheim")
    (place / "junk.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nZm9v\n-----END PRIVATE KEY-----\n")
    (place / "folder").mkdir()
    folder = place / "deployed"
    for name in ("missing.pem", "curve.pem", "locked.pem", "junk.pem", "folder", "ours.pub.pem"):
        with pytest.raises(ConfigError, match="`private_key` must be") as caught:
            sign(folder, place / name)
        assert "Zm9v" not in str(caught.value)
    for name in ("missing.pem", "curve.pub.pem", "junk.pem", "folder", "ours.pem"):
        with pytest.raises(ConfigError, match="`public_key` must be"):
            verify_signature(folder, place / name)
    with pytest.raises(ConfigError, match="`private_key` must be"):
        sign(folder, 7)  # type: ignore[arg-type]
    monkeypatch.setenv("TSDISTILL_KEY_PASSWORD", "geheim")
    sign(folder, place / "locked.pem")
    verify_signature(folder, place / "locked.pub.pem")
    monkeypatch.setenv("TSDISTILL_KEY_PASSWORD", "falsch")
    with pytest.raises(ConfigError, match="`private_key` must be"):
        sign(folder, place / "locked.pem")


def test_without_cryptography_one_sentence_says_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for load in loaders(place / "deployed"):
        with pytest.raises(UnsupportedError, match=r"pip install 'tsdistill\[sign\]'"):
            load(place / "deployed", place / "ours.pub.pem")
    with pytest.raises(UnsupportedError, match=r"tsdistill\[sign\]"):
        sign(place / "deployed", place / "ours.pem")
    assert checker(None) is None
    runtime.load(place / "deployed")


def shell(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tsdistill", *arguments])
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def test_the_shell_signs_and_verifies(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    unsigned(place / "deployed")
    assert shell(monkeypatch, "verify", "deployed", "--key", "ours.pub.pem") == 5
    assert "no signature" in capsys.readouterr().err
    assert shell(monkeypatch, "sign", "deployed", "--key", "ours.pem", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"signature": "deployed/manifest.sig"}
    assert shell(monkeypatch, "verify", "deployed", "--key", "ours.pub.pem") == 0
    assert "signed_by" in capsys.readouterr().out
    assert shell(monkeypatch, "verify", "trainable", "--key", "ours.pub.pem") == 0
    assert shell(monkeypatch, "verify", "deployed") == 0
    assert "signed_by" not in capsys.readouterr().out.splitlines()[-1]
    assert shell(monkeypatch, "verify", "deployed", "--key", "theirs.pub.pem") == 5
    assert shell(monkeypatch, "sign", "deployed", "--key", "ours.pub.pem") == 2
    assert shell(monkeypatch, "predict", "deployed", "none.csv", "--key", "theirs.pub.pem") == 5


def test_a_store_that_demands_signatures_promotes_and_keeps_nothing_else(made: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "fresh.csv")
    keys = {"public_key": str(made / "ours.pub.pem")}
    with without_controls():
        verdict = run_job(job(tmp_path, **keys), as_of=FIRST)
        assert verdict.decision == "kept"
        assert "not signed as the store demands" in verdict.reason
        assert not (tmp_path / "store" / "current").exists()
        wrong = job(tmp_path, private_key=str(made / "theirs.pem"))  # the store remembers its key
        assert "was signed with the key" in run_job(wrong, as_of=FIRST).reason
        with pytest.raises(ConfigError, match="private_key"):
            run_job(job(tmp_path, private_key=str(tmp_path / "missing.pem")))
        with pytest.raises(ArtifactError, match="another one"):
            run_job(job(tmp_path, public_key=str(made / "theirs.pub.pem")))
        signing = job(tmp_path, private_key=str(made / "ours.pem"), **keys)
        assert run_job(signing, as_of=FIRST).decision == "promoted"
    current = tmp_path / "store" / "current"
    runtime.load(current, public_key=made / "ours.pub.pem")
    assert json.loads((tmp_path / "store" / MARK).read_text())["public_key"].startswith("-----BEGIN PUBLIC KEY")
    # Somebody exchanges what is served: it is no incumbent any more, and nothing to go back to.
    signed_by = (current / "manifest.sig").read_text()
    sign(current, made / "theirs.pem")
    store = Store(tmp_path / "store")
    with pytest.raises(ArtifactError, match="was signed with the key"):
        store.load(str(store.served()))
    with without_controls():
        mended = run_job(signing, as_of=FIRST)
    assert mended.decision == "promoted"
    assert (current / "manifest.sig").read_text() == signed_by
    with pytest.raises(td.errors.OrderError):
        rollback(tmp_path / "store")


def test_a_job_finds_its_keys_beside_its_file(tmp_path: Path) -> None:
    text = 'store = "store"\npublic_key = "keys/a.pem"\nprivate_key = "/b.pem"\n[data]\ndataset = "nyc-weather"\n'
    (tmp_path / "job.toml").write_text(text)
    read = td.retrain.Job.from_file(tmp_path / "job.toml")
    assert (read.public_key, read.private_key) == (str(tmp_path / "keys" / "a.pem"), "/b.pem")
