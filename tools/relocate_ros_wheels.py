# SPDX-License-Identifier: Apache-2.0
"""
Point the ROS wheels' CMake files to the headers of this environment.

The wheels carry the include paths of the machine that built them, and CMake refuses targets
whose include paths do not exist.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

HEADERS = {
    # numpy's first: it contains the start of the other
    r'/opt/python/[^;"]+/site-packages/numpy/_core/include': numpy.get_include(),
    r'/opt/python/[^;"]+/include/python3\.\d+': sysconfig.get_paths()['include'],
}

for path in Path(sys.argv[1], 'share').rglob('*.cmake'):
    text = relocated = path.read_text()
    for built_with, here in HEADERS.items():
        relocated = re.sub(built_with, here, relocated)
    if relocated != text:
        path.write_text(relocated)
        print(path)
