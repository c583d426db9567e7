"""Bodies of /v1/vector_stores and /v1/vector-io."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from puna.stack.wire.base import Wire

Number = Annotated[float, Field(allow_inf_nan=False)]
Key = Annotated[str, StringConstraints(max_length=64)]
Attributes = Annotated[
    dict[Key, Annotated[str, StringConstraints(max_length=512)] | bool | int | Number], Field(max_length=16)
]
Metadata = Annotated[dict[Key, Annotated[str, StringConstraints(max_length=512)]], Field(max_length=16)]
FileId = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9_-]+$")]
FileStatus = Literal["in_progress", "completed", "failed", "cancelled"]


class AutoChunking(Wire):
    type: Literal["auto"]


class ChunkSizes(Wire):
    max_chunk_size_tokens: int = Field(ge=100, le=4096)
    chunk_overlap_tokens: int = Field(ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.chunk_overlap_tokens > self.max_chunk_size_tokens // 2:
            raise ValueError("chunk_overlap_tokens may be at most half of max_chunk_size_tokens")
        return self


class StaticChunking(Wire):
    type: Literal["static"]
    static: ChunkSizes


Chunking = Annotated[AutoChunking | StaticChunking, Field(discriminator="type")]


class ExpiresAfter(Wire):
    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class CreateVectorStore(Wire):
    name: str | None = Field(None, max_length=512)
    description: str | None = Field(None, max_length=512)
    file_ids: list[FileId] | None = Field(None, max_length=500)
    expires_after: ExpiresAfter | None = None
    chunking_strategy: Chunking | None = None
    metadata: Metadata | None = None
    embedding_model: str | None = Field(
        None, description="Of this server's models; the first embedding model if absent."
    )


class UpdateVectorStore(Wire):
    name: str | None = Field(None, max_length=512)
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class FileEntry(Wire):
    file_id: FileId
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None


class UpdateFile(Wire):
    attributes: Attributes | None


class CreateFileBatch(Wire):
    file_ids: list[FileId] | None = Field(None, max_length=2000)
    files: list[FileEntry] | None = Field(None, max_length=2000)
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None

    def entries(self) -> list[FileEntry]:
        """The files to attach, each once, in order."""
        every = list(self.files or [])
        for id in self.file_ids or []:
            every.append(FileEntry(file_id=id, attributes=self.attributes, chunking_strategy=self.chunking_strategy))
        return list({entry.file_id: entry for entry in every}.values())


class Comparison(Wire):
    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: str
    value: str | bool | int | Number | list[str | bool | int | Number]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if isinstance(self.value, list) != (self.type in ("in", "nin")):
            raise ValueError("the value of 'in' and 'nin' is a list, and that of the others is not")
        return self


class Compound(Wire):
    type: Literal["and", "or"]
    filters: list[AnyFilter] = Field(min_length=1)


AnyFilter = Annotated[Comparison | Compound, Field(discriminator="type")]


class RankingOptions(Wire):
    ranker: str | None = None
    score_threshold: float = Field(0.0, ge=0.0, le=1.0)


class SearchBody(Wire):
    query: str | list[str]
    filters: AnyFilter | None = None
    max_num_results: int = Field(10, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    rewrite_query: bool = Field(False, description="Queries are searched for as they are; 'search_query' shows them.")
    search_mode: Literal["hybrid", "keyword", "vector"] = Field(
        "hybrid", description="Our own addition, as OGX has it."
    )


class Chunk(Wire):
    """A passage that the caller cut by himself."""

    content: str | list[dict[str, Any]] | dict[str, Any]
    chunk_id: Annotated[str, Field(max_length=256)] | None = None
    metadata: dict[str, Any] | None = None
    chunk_metadata: dict[str, Any] | None = None


class InsertChunks(Wire):
    vector_store_id: str | None = None
    vector_db_id: str | None = Field(None, description="How older clients call it.")
    chunks: list[Chunk]


class QueryChunks(Wire):
    vector_store_id: str | None = None
    vector_db_id: str | None = Field(None, description="How older clients call it.")
    query: str | list[str] | list[dict[str, Any]] | dict[str, Any]
    params: dict[str, Any] | None = None


class FileCounts(Wire):
    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class VectorStore(Wire):
    id: str
    object: Literal["vector_store"]
    created_at: int
    name: str
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["expired", "in_progress", "completed"]
    expires_after: ExpiresAfter | None = None
    expires_at: int | None = None
    last_active_at: int | None
    metadata: dict[str, str]


class LastError(Wire):
    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class VectorStoreFile(Wire):
    id: str
    object: Literal["vector_store.file"]
    created_at: int
    vector_store_id: str
    status: FileStatus
    last_error: LastError | None
    usage_bytes: int
    attributes: dict[str, Any] | None
    chunking_strategy: dict[str, Any]


class FileBatch(Wire):
    id: str
    object: Literal["vector_store.files_batch"]
    created_at: int
    vector_store_id: str
    status: FileStatus
    file_counts: FileCounts


class SearchPage(Wire):
    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[dict[str, Any]]
    has_more: bool
    next_page: str | None
