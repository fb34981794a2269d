{"key_id": "33504038dd4071cb", "signature": "goh0QbSezZOvaBqcF7IdQNmI/fVPVy2BlBrHWs33FeuY4dtFzlA/2rxgpYFIXhj242q0/wEHGpFISmcAK09DAw=="}
