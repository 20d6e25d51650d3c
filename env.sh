# SPDX-License-Identifier: Apache-2.0
# Puts a shell (bash or zsh) into the built environment:  . ./env.sh
# May be sourced from anywhere, and more than once. ROS=kilted chooses the environment that
# make setup ROS=kilted made, of wheels of that distribution; Jazzy's is the default.

_adpc_prepend() {  # NAME DIRECTORY: put it first in a path variable, once
  eval "local rest=\":\${$1:-}:\""
  rest="${rest//":$2:"/:}"
  rest="${rest#:}"
  rest="${rest%:}"
  export "$1=$2${rest:+:$rest}"
}

_adpc_enter() {  # REPOSITORY
  local suffix="-${ROS:-jazzy}"
  local venv="$1/.venv${suffix#-jazzy}" install="$1/install${suffix#-jazzy}"
  if [ ! -e "$venv/adpc_ros.stamp" ] || [ ! -e "$install/adpc_ros.stamp" ]; then
    echo "adpc_ros: not set up yet: make -C $1 setup${ROS:+ ROS=$ROS}" >&2
    return 1
  fi
  if [ -d "$venv/share/ament_index" ]; then  # ROS from wheels
    _adpc_prepend AMENT_PREFIX_PATH "$venv"
    # Their start-up hook sets the library path and starts Python again, unless this is set.
    unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
  else
    case "${ROS_DISTRO:-}" in
      jazzy|kilted) ;;
      humble|lyrical)
        echo "adpc_ros: warning: nothing was run with ROS 2 $ROS_DISTRO: docs/distributions.md" >&2 ;;
      *)
        echo "adpc_ros: set up with an installed ROS: source /opt/ros/jazzy/setup.bash first" >&2
        return 1 ;;
    esac
  fi
  . "$venv/bin/activate"
  _adpc_prepend AMENT_PREFIX_PATH "$install/adpc_ros"
  _adpc_prepend LD_LIBRARY_PATH "$install/adpc_ros/lib"
  _adpc_prepend PYTHONPATH "$(echo "$install"/adpc_ros/lib/python3*/site-packages)"
  _adpc_prepend PYTHONPATH "$1"  # edited files count at once
  export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
  # Compute threads that wait soon let others have their core.
  export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-20000}"
  # Without it Fast DDS drops large images. Fast DDS 3 (Kilted and later) reads the first name,
  # Fast DDS 2 the second.
  local profile="${FASTDDS_DEFAULT_PROFILES_FILE:-${FASTRTPS_DEFAULT_PROFILES_FILE:-}}"
  profile="${profile:-$1/config/fastdds_shared_memory.xml}"
  export FASTDDS_DEFAULT_PROFILES_FILE="$profile" FASTRTPS_DEFAULT_PROFILES_FILE="$profile"
}

# This file's path: in bash, else in zsh.
_adpc_enter "$(cd "$(dirname "${BASH_SOURCE[0]:-${(%):-%x}}")" && pwd)" &&
  unset -f _adpc_prepend _adpc_enter
