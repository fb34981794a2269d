{"key_id": "83b11eb9ed5f0521", "signature": "gKcTOlKN4DD02K009v8EZOUo4xsEH93InGzA9u8dSMS6SvQ1WwiEZSWyMvaBU/fLDDpJn7jVbQaTXujTdTbeAw=="}
