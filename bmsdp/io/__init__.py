"""Readers and writers of problem files, one module per format.

Every reader returns ``(C, A, b, meta)``: plain arrays for ``min <C, X>  s.t.  A(X) = b, X ⪰ 0``, with ``A = b = None``
for the unit diagonal; general rows come stacked, row j of the m x n^2 CSR array A being ``A_j.ravel()``, with the structure of X in
``meta["blocks"]`` as `bmsdp.solve` takes it. ``meta["sense"]`` ("min" or "max") and ``meta["offset"]`` lead back to the file's
own objective, ``offset + <C, X>`` for "min" and ``offset - <C, X>`` for "max". What a reader refuses it refuses as a
`bmsdp.io.errors.FormatError`, which names file and line.
"""
