"""Print the lowest versions that pyproject.toml declares, as constraints for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
groups = [project["dependencies"], *project["optional-dependencies"].values()]
for requirement in sorted({requirement for group in groups for requirement in group}):
    if bound := re.match(r"([\w-]+)(?:\[.*\])?>=([\d.]+)", requirement):
        print(f"{bound[1]}=={bound[2]}")
