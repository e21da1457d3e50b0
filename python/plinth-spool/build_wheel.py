"""Builds the wheel (PEP 517), with nothing but Python: no download, no build dependency, the same bytes every time.

`pip wheel --no-deps --no-build-isolation .`, or `python build_wheel.py FOLDER`.
"""

import base64
import hashlib
import pathlib
import sys
import tomllib
import zipfile

root = pathlib.Path(__file__).parent


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    project = _project()
    stem = f"{project['name'].replace('-', '_')}-{project['version']}"
    files = {path.relative_to(root / "src").as_posix(): path.read_bytes() for path in sorted((root / "src").rglob("*.py"))}
    files |= {f"{stem}.dist-info/{name}": content for name, content in _metadata(project).items()}
    record = f"{stem}.dist-info/RECORD"
    rows = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[record] = "".join(f"{row}\n" for row in [*rows, f"{record},,"]).encode()
    name = f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            wheel.writestr(entry, content)
    return name


def build_sdist(sdist_directory, config_settings=None):
    import tarfile

    project = _project()
    stem = f"{project['name'].replace('-', '_')}-{project['version']}"
    name = f"{stem}.tar.gz"
    with tarfile.open(pathlib.Path(sdist_directory) / name, "w:gz") as archive:
        for path in sorted([*root.glob("*.*"), root / "LICENSE", *(root / "src").rglob("*.py")]):
            archive.add(path, f"{stem}/{path.relative_to(root).as_posix()}")
    return name


def _project():
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def _metadata(project):
    head = [
        ("Metadata-Version", "2.4"),
        ("Name", project["name"]),
        ("Version", project["version"]),
        ("Summary", project["description"]),
        ("License-Expression", project["license"]),
        ("License-File", "LICENSE"),
        ("Requires-Python", project["requires-python"]),
        *(("Requires-Dist", each) for each in project["dependencies"]),
        ("Description-Content-Type", "text/markdown"),
    ]
    text = "".join(f"{key}: {value}\n" for key, value in head) + "\n" + (root / "README.md").read_text()
    points = "\n".join(
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
        for group, entries in project["entry-points"].items()
    )
    return {
        "METADATA": text.encode(),
        "WHEEL": b"Wheel-Version: 1.0\nGenerator: plinth\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": points.encode(),
        "licenses/LICENSE": (root / "LICENSE").read_bytes(),
    }


def _digest(content):
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    print(build_wheel(sys.argv[1] if len(sys.argv) > 1 else "."))
