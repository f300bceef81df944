from ..fixtures.tiny import tiny_system, TINY
from .test_media import noise
import time
def test_a():
    t=time.time()
    s = tiny_system()
    print(sum(p.numel() for p in s.parameters()), time.time()-t)
