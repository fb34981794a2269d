{"key_id": "3b2c906b9e2d27c7", "signature": "rR6Qc60846blCRuBWnmhn9Coe1mByy0VYHEOAN9cuijA0FsyOcvWO85ybxQFn6g7eJ/Z5rtQu0Lgm8jWMOqtAQ=="}
