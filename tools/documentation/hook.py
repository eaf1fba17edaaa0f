"""What MkDocs runs: pages that are generated from the code join those of docs/."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from commands import commands_page
from lists import decisions_page, errors_page

from protos import Contract, api_page, job_file_page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    contract, docs = Contract.read(), Path(config.docs_dir)
    for uri, content in (
        ("reference/commands.md", commands_page()),
        ("reference/job-file.md", job_file_page(contract)),
        ("reference/grpc.md", api_page(contract)),
        ("errors/index.md", errors_page(docs)),
        ("decisions/index.md", decisions_page(docs)),
    ):
        files.append(File.generated(config, uri, content=content))
    return files
