"""What every route stands on: problems, guard, paging, bodies, tables, tokens, access, limits, pages."""
