"""What comes of files in a hash queue, by the sources of files."""

from __future__ import annotations

from zipfs.index.hash_jobs import Request
from zipfs.index.hash_queue import Hasher
from zipfs.library.filestate import Checksums
from zipfs.library.scan import SourceFile


class Results:
    def __init__(self) -> None:
        self.hashed: dict[bytes, Checksums] = {}
        self.requests: list[Request] = []

    async def keep(self, file: SourceFile, checksums: Checksums) -> None:
        self.hashed[file.source] = checksums

    def request(self, hasher: Hasher, file: SourceFile, *, asked: bool = False) -> None:
        self.requests.append(hasher.request([file], asked=asked))

    @property
    def failed(self) -> dict[bytes, Exception]:
        return {file.source: error for one in self.requests for file, error in one.failures}
