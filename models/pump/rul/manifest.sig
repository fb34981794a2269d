{"key_id": "a835332d794157af", "signature": "xFDD/wh4166cqT6HHWcNvNZmoFjm29gqkXkzT3pNWkGw7qy8+bI/rJGDORGN+u46G770kSkMFZ4qlqCKNyl6Dw=="}
