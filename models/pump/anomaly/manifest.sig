{"key_id": "a835332d794157af", "signature": "jPYNZQikwzgaTdNjnq+O+D8GwX2TY3Fi6cJzekzyKkwzzZdau8qbqYvZXqh8ozNpE8rwkKaQH2yGSGEZ/GMwDA=="}
