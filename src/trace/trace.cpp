#include "rometrace/trace/trace.hpp"

#include <algorithm>

namespace rometrace {

std::string_view to_string(Direction direction) {
  switch (direction) {
    case Direction::kDenoising:
      return "denoising";
    case Direction::kNoising:
      return "noising";
    case Direction::kBoth:
      return "both";
  }
  return "unknown";
}

std::string_view to_string(Kind kind) {
  switch (kind) {
    case Kind::kState:
      return "state";
    case Kind::kMlp:
      return "mlp";
    case Kind::kAttn:
      return "attn";
    case Kind::kHead:
      return "head";
    case Kind::kStateMlpSevered:
      return "state_mlp_severed";
    case Kind::kStateAttnSevered:
      return "state_attn_severed";
    case Kind::kKnockout:
      return "knockout";
  }
  return "unknown";
}

std::string_view to_string(Measure measure) {
  switch (measure) {
    case Measure::kProbability:
      return "probability";
    case Measure::kLogProbability:
      return "log_probability";
    case Measure::kLogit:
      return "logit";
    case Measure::kLogitDifference:
      return "logit_difference";
    case Measure::kNormalised:
      return "normalised";
    case Measure::kRank:
      return "rank";
    case Measure::kKl:
      return "kl";
  }
  return "unknown";
}

std::string_view to_string(Engine engine) {
  switch (engine) {
    case Engine::kSweep:
      return "sweep";
    case Engine::kPlain:
      return "plain";
    case Engine::kGradient:
      return "gradient";
  }
  return "unknown";
}

std::int64_t TraceOptions::window_of_kind(Kind kind) const {
  switch (kind) {
    case Kind::kMlp:
    case Kind::kAttn:
      return window;
    case Kind::kHead:
      return head_window;
    case Kind::kKnockout:
      return knockout_window;
    case Kind::kState:
    case Kind::kStateMlpSevered:
    case Kind::kStateAttnSevered:
      break;
  }
  return 1;
}

std::int64_t TracePrompt::first_corrupted() const {
  return static_cast<std::int64_t>(rometrace::first_corrupted(subject_range, token_ids, counter_ids));
}

std::vector<Reading> readings_of(const TracePrompt& prompt, const TraceOptions& options) {
  std::vector<Reading> readings;
  const auto add = [&](Measure measure) {
    const Reading reading{measure, 0};
    if (std::find(readings.begin(), readings.end(), reading) == readings.end()) readings.push_back(reading);
  };
  for (const auto measure : options.measures) {
    if (measure == Measure::kProbability) continue;
    if (measure != Measure::kNormalised) {
      add(measure);
    } else if (prompt.foil) {
      add(Measure::kLogitDifference);
    }
  }
  for (std::size_t i = 0; i < prompt.other_targets.size(); ++i) readings.push_back({Measure::kProbability, i + 1});
  return readings;
}

}  // namespace rometrace
