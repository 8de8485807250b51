"""Annotation files and lists of other toolkits are refused with what to use instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.errors import ManifestError

KINETICS = "`hiera-video prepare kinetics --csv {path} --videos FOLDER`"
UCF101 = "hiera-video prepare ucf101_hmdb51 --split {split} --videos FOLDER --splits {folder}`"
SSV2 = "`hiera-video prepare ssv2 --json train.json`"
VIDEOMAE = (
    "has `path 0 -1` lines, VideoMAEv2's form for pre-training (path, start, total); write one "
    "path a line, without the numbers, as pre-training needs no labels; folders of frames go into "
    'a list of their own, as `frame_dir num_frames ""`'
)
OFFSET = (
    "has three numbers after each folder, the first 'train/x 0 24 0'; MMAction2's `frame_dir "
    "offset num_frames label` is not supported: put the frames of each clip into a folder of its "
    "own and write `frame_dir num_frames label`; if the last two numbers are labels, set "
    "data.multi_label=true; if they are seconds of a video, put its path into quotes"
)
FROM_1 = (
    "labels count from 1, as in UCF101's trainlist01.txt, and classes from 0; make the lists with `"
    + UCF101
    + ", or subtract 1 from each label"
)
COLUMNS = "label,youtube_id,time_start,time_end,split"
CHARADES = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "k.csv",
            f"{COLUMNS}\nair drumming,---QUuC4vJs,84,94,train\n",
            f"is Kinetics' annotation file; make a list of your clips with {KINETICS}",
        ),
        (
            "k.csv",
            '"label","youtube_id","time_start","time_end","split","is_cc"\n'
            '"air drumming","---QUuC4vJs","84","94","train","0"\n',
            f"is Kinetics' annotation file; make a list of your clips with {KINETICS}",
        ),
        (
            "k.csv",
            "youtube_id,time_start,time_end,split\n---QUuC4vJs,84,94,test\n",
            "is Kinetics' annotation file of a split without labels; pass the folder of its clips "
            "to hiera-video predict",
        ),
        (
            "k.csv",
            '"air drumming",---QUuC4vJs,84,94,train\nzumba,0347ZoDXyP0,5,15,train,0\n',
            "is Kinetics' annotation file without its header; put the first line "
            f"`{COLUMNS}` back and use {KINETICS}",
        ),
        (
            "Charades_v1_train.csv",
            f'{CHARADES}\n46GP8,HR43,Kitchen,6,7,Yes,"A man, 3",food,x,c092 11.90 21.20,24.83\n',
            "is Charades' annotation file; write `<id>.mp4 92 147` lines, with the numbers of the "
            "actions c092 and c147, and set data.multi_label=true, or use PySlowFast's lists of "
            "its frames",
        ),
        (
            "something-something-v1-train.csv",
            "100218;Something falling like a feather or paper\n34870;Doing other things\n",
            "has `id;class` lines, as the csv files of Something-Something v1 and Jester; for "
            f"version 2 use its json, read as it is or by {SSV2}; for the others write `path "
            "label` or `frame_dir num_frames label` lines, with the class's index from 0",
        ),
        *(
            (
                "train.txt",
                content,
                "is JSON; if these are Something-Something's annotations, give the file a name "
                f"that ends in .json, which is read as it is, or use {SSV2}",
            )
            for content in ('[{"id": "1"}]', '[\n {"id": "1"}\n]', '{"1": {}}', '{\n"1": {}\n}')
        ),
        (
            "classInd.txt",
            "1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n",
            "has `number class` lines, as UCF101's classInd.txt, and no videos; for UCF101 make "
            f"the lists with `{UCF101}; for your own videos write the names, without numbers, into "
            "labels.txt beside the list of videos",
        ),
        (
            "brush_hair_test_split3.txt",
            "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \nbrush my hair_h_cm_np1_fr_goo.avi 0 \n",
            "is a split file of HMDB51, whose numbers are parts (1 training, 2 test), not classes; "
            f"make the lists with `{UCF101}",
        ),
        (
            "trainlist02.txt",
            "Archery/v_Archery_g08_c01.avi 3\nApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\n"
            "HandstandPushups/v_HandStandPushups_g08_c01.avi 37\n",
            FROM_1,
        ),
        ("my.csv", "videos/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.mp4,1\n", FROM_1),
        ("v.csv", "a/b.mp4 0 -1\nc d.mp4 0 -1\n", VIDEOMAE),
        ("v.csv", "a/b.mp4 0 -1 0\n", VIDEOMAE),
        ("v.csv", "frames/a 9601 300\na/b.mp4 0 -1\nframes/b 1 29\n", VIDEOMAE),
        ("list.txt", "train/x 0 24 0\ntrain/y 12 163 3\n", OFFSET),
        ("list.txt", "my x 0 24 0\ny 12 163 3\n", OFFSET.replace("train/x", "my x")),
        (
            "list.txt",
            "train/x 24 0 2 4\ntrain/y 30 1\n",
            "has 2 to 4 numbers after each folder, the first 'train/x 24 0 2 4'; if they are "
            "`frame_dir num_frames label label …`, set data.multi_label=true",
        ),
        (
            "list.txt",
            "x 24 0 2 4\ny 30 1 5 7\n",
            "has 4 numbers after each folder, the first 'x 24 0 2 4'; if they are `frame_dir ",
        ),
    ],
)
def test_known_files(tmp_path: Path, name: str, content: str, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    split = "".join(re.findall(r"(\d)\.txt", name)) or "1"
    message = f"{path}: " + words.format(path=path, split=split, folder=tmp_path)
    with pytest.raises(ManifestError, match=re.escape(message)):
        read_manifest(str(path))


@pytest.mark.parametrize("content", ["a/b.mp4 0 -1\n", f"{CHARADES}\nx\n", "1 Archery\n"])
def test_known_files_with_multi_label(tmp_path: Path, content: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(content)
    with pytest.raises(ManifestError, match=r"list\.csv: (has `|is Charades)"):
        read_manifest(str(path), multi_label=True)


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("a.csv", "Archery/v_Archery_g08_c01.avi 0\nBiking/v_Biking_g08_c01.avi 1\n", [0, 1]),
        ("a.csv", "Biking/v_Biking_g08_c01.avi 2\n", [2]),
        (  # a test of some classes, which count from 0
            "a.csv",
            "ApplyLipstick/v_ApplyLipstick_g01_c01.avi 1\nArchery/v_Archery_g01_c01.avi 2\n",
            [1, 2],
        ),
        ("my_test_split1.txt", "a/1.avi 0\na/2.avi 1\nb/3.avi 2\n", [0, 1, 2]),
        ("a.csv", "Biking/v_Biking_g08_c01.avi 1\nmy/own.avi 2\n", [1, 2]),
        ("testlist01.txt", "Biking/v_Biking_g08_c01.avi\n", [None]),
        ("a.csv", "brush_hair_u_nm_np1_ba_goo_0.avi 1\n", [1]),
        ("my_test_split1.txt", "a.avi 3\n", [3]),
        ("a.csv", '"clips/7" 1 3 5\n', [1]),
        ("a.csv", "[{a}].mp4 1\n", [1]),
    ],
)
def test_lists_that_are_like_them(
    tmp_path: Path, name: str, content: str, labels: list[int | None]
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert [record.label for record in read_manifest(str(path)).records] == labels


def test_a_stated_separator_says_what_a_list_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("12 walking dogs\n13 running dogs\n")
    found = read_manifest(tmp_path / "a.txt", separator="::")
    assert [Path(one.path).name for one in found.records] == ["12 walking dogs", "13 running dogs"]


def test_class_names_tell_how_labels_count(tmp_path: Path) -> None:
    """With names beside the list, class 0 may be one without videos."""
    (tmp_path / "labels.txt").write_text("background\nArchery\n")
    (tmp_path / "a.csv").write_text("Archery/v_Archery_g08_c01.avi 1\n")
    assert read_manifest(str(tmp_path / "a.csv")).labels_present == {1}
