"""What crosses a wire between device and cloud. Standard library only; shared by both sides."""
