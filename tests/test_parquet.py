"""Parquet files that somebody else made."""

import base64
import subprocess
import sys
import zlib
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


# Of two statistics in it, one has lost an entry: pyarrow ends the process where it is asked about that column.
ENDS_PYTHON = (
    "c-qZWJ#W)M7=F*3jj2-MRJoIlEaaiJij)+J)PhhtoMVR?l9EKNB2b4q!7@c@8<Ij85gUk&4Iw5b286`NNcjOwh(Az9egR_Q&ap#9vt;9ueed"
    "VJACD~8SYwf3@<AfsP=zZn1MmWE`T+2xwsv)T>dX{Zr~Os8!KI2YlHbAM?ZYOwG~Z?G4_~$`!6UGhr#hT<VgJ>0>okvn@2$CSovp{8s{pxdw"
    "W8)=_Tb=s?r4kvnISaK+iFB1in$E){<yB<6~{!4^@&R5(o*B*%x1Z9%98kr5jr99fh{td(xnw40ZQb*d+BN#(bY7U!u%NT@lHl@33R33z7y^"
    "Q1Ov&;6?A!fCx}8IcuvygPS6TFK(S#Oc^gcUF_u8lj3kLj6w@y<{ekV@$X5SniVZ;+5J}LdaZ#kNB||Z6z&uZEhSSaBmE+C6BKjTKZ)E!?o{"
    "Z&V&CaEr=(Cd)+baE}fMMzx)@a;lUK#SQ|3c>lE-`^R8{#@+1Lj1m%vi)qQS5UZ#;QUoG3LjPzmg4Ar#`Z)cX`pvT=7a?a!D9$gbk6|zuCOj"
    "X~lNL+_*?PNfjukmo`M4&$BA#isy9F9M6l3I)icbyRBw<_f~y$<w$&G1$3($^zPjc_Y3WAw-EGtdjso1*z0fa?OGR?7cML;8hI0dKk$)%zBT"
    "?|`2#1+(x?"
)


def test_a_damaged_table_does_not_end_the_process(tmp_path):
    (tmp_path / "train.parquet").write_bytes(zlib.decompress(base64.b85decode(ENDS_PYTHON)))
    code = "from ddpm_course.data import load_images; import sys; load_images(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and "ValueError: none of the files could be read" in done.stderr
