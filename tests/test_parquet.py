"""Parquet files that somebody else made."""

from collections import defaultdict

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ddpm_course import parquet


def test_a_table_that_unpacks_to_far_more_than_it_holds_is_left_out_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "UNPACKED", 1 << 20)
    noise = torch.randint(256, (2 << 20,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for name, content in {"zeros": bytes(2 << 20), "noise": noise.numpy().tobytes()}.items():
        table = pa.table({"image": [content], "label": [1]})
        pq.write_table(table, tmp_path / f"{name}.parquet", compression="zstd", use_dictionary=False)
    left_out = defaultdict(list)
    files = {path.name: path for path in sorted(tmp_path.iterdir())}
    [table] = parquet.find_tables(files, left_out)["train"]
    assert table.name == "noise.parquet"
    assert left_out == {"Parquet that unpacks to more than a hundred times its size": ["zeros.parquet"]}
