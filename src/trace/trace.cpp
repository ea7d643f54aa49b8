#include "rometrace/trace/trace.hpp"

#include <algorithm>

namespace rometrace {

std::string_view to_string(Kind kind) {
  switch (kind) {
    case Kind::kState:
      return "state";
    case Kind::kMlp:
      return "mlp";
    case Kind::kAttn:
      return "attn";
  }
  return "unknown";
}

std::string_view to_string(Engine engine) {
  switch (engine) {
    case Engine::kSweep:
      return "sweep";
    case Engine::kPlain:
      return "plain";
  }
  return "unknown";
}

LayerRange window_of(std::int64_t layer, std::int64_t window, std::int64_t layers) {
  return {std::max<std::int64_t>(0, layer - window / 2), std::min(layers, layer + window - window / 2)};
}

}  // namespace rometrace
