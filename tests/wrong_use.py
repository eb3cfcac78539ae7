"""The rules that every door keeps for the numbers it is given."""
import math
import re

import numpy as np
import pytest
import torch

NAN, INF = math.nan, math.inf
WHOLE_TWO = (np.int64(2), np.array(2), np.uint8(2), torch.tensor(2), torch.tensor(2, dtype=torch.int32))
REAL_TWO = (2, np.float32(2), np.float64(2), np.int64(2), np.array(2.0), torch.tensor(2), torch.tensor(2.0).half())
NO_WHOLE = (True, np.True_, "2", 2.0, np.float32(2.0), NAN, torch.tensor(2.5), -1, [2], 1j)
NO_NUMBER = (True, np.True_, "3", NAN, INF, np.float32("nan"), torch.tensor(torch.inf), [3.0], 1j)


def doors(table):
    return pytest.mark.parametrize("door", table.values(), ids=table)


def refused(error, message, call, *args):
    with pytest.raises(error, match=f"(?s)^{message}"):
        call(*args)


def takes_whole_numbers(name, beyond, call):
    """A whole number may come from anywhere and nothing else is one."""
    for same in WHOLE_TWO:
        assert str(call(same)) == str(call(2))
    for wrong in (*NO_WHOLE, beyond):
        refused(ValueError, f"{name} is .*{re.escape(repr(wrong))}.*, must be ", call, wrong)


def takes_numbers(name, beyond, call):
    """A number may come from anywhere and nothing else is one."""
    for same in REAL_TWO:
        assert str(call(same)) == str(call(2.0))
    for wrong in (*NO_NUMBER, *beyond):
        value = rf"(\(0, )?{re.escape(repr(wrong))}\)?"       # alone, or the end of a range
        refused(ValueError, f"{name} is {value}( at time 1)?, must be ", call, wrong)
