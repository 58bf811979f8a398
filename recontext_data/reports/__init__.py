"""What a build shows of itself: the report, the terminal screen and the dataset cards. All of them read one manifest."""
