"""Which recipe helps boards how much? Every recipe on real users, with the product's own functions, paired by user.

`work` measures one board, `plan` says what is to be measured, `records` keeps it, `summary` and `overall` compare, and
`report`, `curves` and `document` show it. `text.md` holds what people wrote for docs/personalization.md.
"""
