"""Fetches a target of a TUF repository with the reference client.

tuf_client.py ROOT URL FOLDER TARGET: pins the file ROOT, reads URLmetadata/ and URLtargets/, remembers and
downloads in FOLDER. Prints the path of the downloaded file, or the client's error and exits with 1.
"""

import pathlib
import sys

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.ngclient import Updater

root, url, folder, target = sys.argv[1:]
metadata, targets = pathlib.Path(folder, "metadata"), pathlib.Path(folder, "targets")
metadata.mkdir(parents=True, exist_ok=True)
targets.mkdir(parents=True, exist_ok=True)
updater = Updater(
    str(metadata),
    url + "metadata/",
    str(targets),
    url + "targets/",
    bootstrap=pathlib.Path(root).read_bytes(),
)
try:
    updater.refresh()
    found = updater.get_targetinfo(target)
    if found is None:
        sys.exit(f"no role lists {target}")
    print(updater.download_target(found))
except (DownloadError, RepositoryError) as error:
    sys.exit(f"{type(error).__name__}: {error}")
