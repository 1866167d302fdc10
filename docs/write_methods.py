"""Write docs/methods: a page for every method that ipbench ships, and a list of them.

python docs/write_methods.py
"""

from pathlib import Path

from ipbench.methods import methods
from ipbench.methods._pages import index, page

FOLDER = Path(__file__).parent / "methods"


def pages() -> dict[str, str]:
    """The pages by the names of their files."""
    return {"README.md": index(methods()), **{f"{name}.md": page(method) for name, method in methods().items()}}


def main() -> None:
    """Write them, and take away those of methods that are gone."""
    FOLDER.mkdir(exist_ok=True)
    found = pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in found:
            path.unlink()
    for name, text in found.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
