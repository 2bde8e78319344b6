"""Compare any two tables: what broke, what drifted, what is merely away.

    import predis.drift
    found = predis.drift.compare(last_year, today)
    print(found)

Tables are pandas, Polars or Arrow tables, NumPy arrays, dictionaries of columns, or names of CSV and Parquet files. Rows are taken to be in
time order, or are put in order by a column.
"""

from predis.drift.compare import compare
from predis.drift.result import Comparison, FeatureDrift, Severity

__all__ = ["Comparison", "FeatureDrift", "Severity", "compare"]
