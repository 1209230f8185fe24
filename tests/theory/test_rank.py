import pytest

from bmsdp.theory.rank import barvinok_pataki, dim_sym, generic_rank


@pytest.mark.parametrize(("n", "real", "complex_"), [(100, 14, 11), (1000, 45, 32), (10000, 141, 101)])
def test_generic_rank_of_n_unit_diagonal_constraints(n, real, complex_):
    # theory of the smoothed analysis, section 3, last column
    assert generic_rank(n) == real
    assert generic_rank(n, complex=True) == complex_


@pytest.mark.parametrize("complex_", [False, True])
def test_ranks_are_what_their_definitions_say(complex_):
    for m in [*range(200), 10**18 - 1, 10**18, 10**40]:
        r, k = barvinok_pataki(m, complex_), generic_rank(m, complex_)
        assert dim_sym(r, complex_) <= m < dim_sym(r + 1, complex_)
        assert dim_sym(k - 1, complex_) <= m < dim_sym(k, complex_)


def test_dimension_counts_free_real_entries():
    assert [dim_sym(k) for k in range(5)] == [0, 1, 3, 6, 10]
    assert [dim_sym(k, complex=True) for k in range(5)] == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("function", [dim_sym, barvinok_pataki, generic_rank])
def test_bad_counts_are_refused(function):
    with pytest.raises(ValueError, match="-1; a number >= 0 is needed"):
        function(-1)
    with pytest.raises(TypeError):
        function(2.5)
