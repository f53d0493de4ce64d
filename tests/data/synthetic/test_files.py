from timfuse.data import find_pairs, make_scene, read_pixels, write_scenes


def test_scenes_on_disk_are_the_scenes_and_pair_up(tmp_path):
    write_scenes(tmp_path, 2, height=40, width=56, seed=7)
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["scene_00000", "scene_00001"]
    for index, pair in enumerate(pairs):
        scene = make_scene([7, index], height=40, width=56)
        assert (read_pixels(pair.first) == scene.first).all()
        assert (read_pixels(pair.second) == scene.second).all()
