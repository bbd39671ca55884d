"""Tables that go on from others."""

import numpy as np
import torch

from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment, Codes
from baco.embedding.continuation import continue_rows
from baco.graph import Biadjacency


def tables_of(users, items):
    return CodebookTables(Assignment(Codes.from_labels(*users), Codes.from_labels(items)), 2)


def test_rows_keep_their_values_by_name_and_new_ones_are_means_of_what_they_are_linked_to():
    old = tables_of([np.array([5, 3]), np.array([5, 5])], np.array([3, 9]))
    torch.nn.init.normal_(old.users.rows), torch.nn.init.normal_(old.items.rows)
    users, items = (side.detach() for side in old())
    # user 2 is new at a new label 4, item 2 is new at 9, item 3 at a new label 8; user 3 at 7 knows item 3 only
    new = tables_of([np.array([5, 3, 4, 7]), np.array([5, 3, 3, 7])], np.array([3, 9, 9, 8]))
    pairs = np.array([[0, 1, 2, 2, 2, 3, 0], [0, 1, 0, 1, 2, 3, 3]])
    kept, fresh = continue_rows(new, old, Biadjacency.from_pairs(*pairs, 4, 4))
    assert (kept, fresh) == (4, 3)
    found = dict(zip(new.assignment.users.names.tolist(), new.users.rows.detach(), strict=True))
    torch.testing.assert_close(found[3], old.users.rows[0])
    torch.testing.assert_close(found[5], old.users.rows[1])
    torch.testing.assert_close(found[4], (items[0] + 2 * items[1]) / 3)
    torch.testing.assert_close(found[7], (found[3] + found[5]) / 2)  # what it knows is new itself
    assert new.assignment.items.names.tolist() == [3, 8, 9]
    torch.testing.assert_close(new.items.rows[[0, 2]], old.items.rows)
    torch.testing.assert_close(new.items.rows[1], users[0])
