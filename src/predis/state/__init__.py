"""What lasts: the state database, the artifact store and the journal."""

from predis.state.artifacts import ArtifactStore
from predis.state.engine import Database
from predis.state.journal import JournalReader, JournalWriter

__all__ = ["ArtifactStore", "Database", "JournalReader", "JournalWriter"]
