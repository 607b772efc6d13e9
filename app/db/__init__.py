"""The marketplace's database: tables, migrations, what is stored beside them to be searched."""
