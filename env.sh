# SPDX-License-Identifier: Apache-2.0
# Puts a shell (bash or zsh) into the built environment:  . ./env.sh
# May be sourced from anywhere, and more than once.

_adpc_prepend() {  # NAME DIRECTORY: put it first in a path variable, once
  eval "local rest=\":\${$1:-}:\""
  rest="${rest//":$2:"/:}"
  rest="${rest#:}"
  rest="${rest%:}"
  export "$1=$2${rest:+:$rest}"
}

_adpc_enter() {  # REPOSITORY
  if [ ! -e "$1/.venv/adpc_ros.stamp" ] || [ ! -e "$1/install/adpc_ros.stamp" ]; then
    echo "adpc_ros: not set up yet: make -C $1 setup" >&2
    return 1
  fi
  if [ -d "$1/.venv/share/ament_index" ]; then  # ROS from wheels
    _adpc_prepend AMENT_PREFIX_PATH "$1/.venv"
    # Their start-up hook sets the library path and starts Python again, unless this is set.
    unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
  elif [ "${ROS_DISTRO:-}" != jazzy ]; then
    echo "adpc_ros: set up with an installed ROS: source /opt/ros/jazzy/setup.bash first" >&2
    return 1
  fi
  . "$1/.venv/bin/activate"
  _adpc_prepend AMENT_PREFIX_PATH "$1/install/adpc_ros"
  _adpc_prepend LD_LIBRARY_PATH "$1/install/adpc_ros/lib"
  _adpc_prepend PYTHONPATH "$(echo "$1"/install/adpc_ros/lib/python3*/site-packages)"
  _adpc_prepend PYTHONPATH "$1"  # edited files count at once
  export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
  # Compute threads that wait soon let others have their core.
  export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-20000}"
  # Without it Fast DDS drops large images.
  export FASTRTPS_DEFAULT_PROFILES_FILE="${FASTRTPS_DEFAULT_PROFILES_FILE:-$1/config/fastdds_shared_memory.xml}"
}

# This file's path: in bash, else in zsh.
_adpc_enter "$(cd "$(dirname "${BASH_SOURCE[0]:-${(%):-%x}}")" && pwd)" &&
  unset -f _adpc_prepend _adpc_enter
