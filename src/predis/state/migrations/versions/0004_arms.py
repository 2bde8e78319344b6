"""Arms: evidence of rollouts apart from other traffic; segments and shadows of Routes"""

from __future__ import annotations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
