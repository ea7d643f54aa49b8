#include "rometrace/trace/trace.hpp"

#include <algorithm>
#include <charconv>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {

std::string_view to_string(Direction direction) {
  return direction == Direction::kNoising ? "noising" : "denoising";
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

LayerRange window_of(std::int64_t layer, std::int64_t window, std::int64_t layers) {
  return {std::max<std::int64_t>(0, layer - window / 2), std::min(layers, layer + window - window / 2)};
}

PositionRule PositionRule::parse(std::string_view text) {
  if (text == "all") return {Which::kAll, {}};
  if (text == "subject") return {Which::kSubject, {}};
  if (text == "subject-last") return {Which::kSubjectLast, {}};
  if (text == "last") return {Which::kLast, {}};
  PositionRule rule{Which::kList, {}};
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    std::int64_t position = -1;
    const auto [stop, error] = std::from_chars(at, end, position);
    if (error != std::errc() || position < 0 || (stop != end && *stop != ',')) {
      throw Error(in_quotes(text) +
                  " names no positions; expected all, subject, subject-last, last, or positions of the prompt, "
                  "counted from 0, such as 0,2,3");
    }
    rule.list.push_back(position);
    if (stop == end) break;
    at = stop + 1;
  }
  std::sort(rule.list.begin(), rule.list.end());
  rule.list.erase(std::unique(rule.list.begin(), rule.list.end()), rule.list.end());
  return rule;
}

std::string to_string(const PositionRule& rule) {
  switch (rule.which) {
    case PositionRule::Which::kAll:
      return "all";
    case PositionRule::Which::kSubject:
      return "subject";
    case PositionRule::Which::kSubjectLast:
      return "subject-last";
    case PositionRule::Which::kLast:
      return "last";
    case PositionRule::Which::kList:
      break;
  }
  std::string text;
  for (const auto position : rule.list) text += (text.empty() ? "" : ",") + std::to_string(position);
  return text;
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
