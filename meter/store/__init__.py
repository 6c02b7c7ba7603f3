"""Everything that speaks SQL: tables, migrations, the journal's writer and reader, the book, settlement, the outbox."""
