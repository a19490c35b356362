"""The report on a folder: what it holds, what is broken, what its splits share."""

import shutil

from hostile_data import LFS_POINTER
from small_dataset import edit, make_record, repeat_train_record

from safeerase_lite.data.audit import check_data


def test_the_report_counts_questions_by_split_and_category(dataset):
    report = check_data(dataset)
    assert report.counts["split"].tolist() == ["train", "val"]
    assert report.counts[["records", "forget", "retain", "decouple"]].values.tolist() == [
        [2, 2, 8, 2],
        [2, 2, 8, 2],
    ]
    assert "all there and complete" in report.to_text()
    assert "share no record and no picture" in report.to_text()


def test_the_report_lists_broken_pictures_without_raising(dataset):
    (dataset / "img/Corrosive/val0.png").write_text(LFS_POINTER)
    (dataset / "img/Corrosive/val1.png").unlink()
    (dataset / "img/Corrosive/train1.png").unlink()
    report = check_data(dataset)
    assert len(report.broken) == 3 and report.leaks.empty
    assert "2 missing or unreadable; 1 a Git-LFS pointer" in report.to_text()


def test_the_report_counts_what_the_splits_share(dataset):
    repeat_train_record(dataset, keep_safe_picture=True)
    shutil.copy(
        dataset / make_record("train", 1)["SDImage_path"],
        dataset / make_record("val", 1)["SDImage_path"],
    )
    report = check_data(dataset)
    shared = report.leaks.set_index("what")[["repeated", "total"]].values.tolist()
    assert report.leaks["what"].tolist() == ["record", "picture", "safe picture"]
    assert shared == [[1, 2], [1, 2], [1, 2]]
    assert set(report.leaks["also_in"]) == {"train"}
    assert "dedupe='val'" in report.to_text()


def test_the_report_counts_records_without_decouple_questions(dataset):
    edit(dataset, "train", lambda records: records[0].pop("SDImage_path"))
    report = check_data(dataset)
    assert (report.undecoupled, report.rebuilt) == (1, 0)
    assert "1 of 4 records lack decouple questions" in report.to_text()


def test_a_safe_picture_that_answers_fewer_questions_is_counted_too(dataset):
    edit(dataset, "train", lambda records: records[0]["unsafe_pairs"][0].pop("sd_response"))
    assert check_data(dataset).undecoupled == 1
