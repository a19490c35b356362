"""Every exercise, solved, runs to its end under papermill."""

from run_exercises import assert_solved, every


@every
def test_solved_it_ends_all_right_with_all_its_points(path, outputs):
    assert_solved(path, outputs)
