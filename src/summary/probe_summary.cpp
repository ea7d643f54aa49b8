#include "rometrace/summary/probe_summary.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "rometrace/error.hpp"
#include "summary/coverage.hpp"
#include "summary/json_path.hpp"
#include "text/json_shown.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

constexpr std::array kAgree = {"run.dtype", "run.tf32", "known_by.rule", "special_tokens"};

/// Reads the fields of one line; messages begin with where it stands.
struct Reader {
  const std::string& where;

  [[noreturn]] void refuse(const std::string& name, const json* found, const std::string& expected) const {
    throw Error(where + ": " + name + " is " + (found == nullptr ? "missing" : shown(*found, kShownBytes)) +
                "; expected " + expected);
  }

  std::string text(const json& object, const std::string& name) const {
    const auto* value = value_at(object, name);
    if (value == nullptr || !value->is_string()) refuse(name, value, "a string");
    return value->get<std::string>();
  }

  bool flag(const json& object, const std::string& name) const {
    const auto* value = value_at(object, name);
    if (value == nullptr || !value->is_boolean()) refuse(name, value, "true or false");
    return value->get<bool>();
  }

  std::int64_t count(const json& object, const std::string& name) const {
    const auto* value = value_at(object, name);
    if (value == nullptr || !value->is_number_integer() || *value < 1) refuse(name, value, "a whole number from 1");
    return value->get<std::int64_t>();
  }

  double probability(const json& object, const std::string& name) const {
    const auto* value = value_at(object, name);
    if (value == nullptr || !value->is_number() || *value < 0 || *value > 1)
      refuse(name, value, "a number from 0 to 1");
    return value->get<double>();
  }

  /// Bytes of a text; none in files of before there was the field.
  std::optional<ByteRange> span(const json& object, const std::string& name) const {
    const auto* value = value_at(object, name);
    if (value == nullptr) return std::nullopt;
    const auto is_place = [](const json& place) { return place.is_number_unsigned(); };
    if (!value->is_array() || value->size() != 2 || !is_place((*value)[0]) || !is_place((*value)[1]) ||
        (*value)[0] > (*value)[1]) {
      refuse(name, value, "a pair of bytes");
    }
    return ByteRange{(*value)[0].get<std::size_t>(), (*value)[1].get<std::size_t>()};
  }

  const json& list(const json& object, const std::string& name) const {
    const auto* value = value_at(object, name);
    if (value == nullptr || !value->is_array() || value->empty()) refuse(name, value, "a list with an entry or more");
    return *value;
  }
};

}  // namespace

/// What a record says, checked.
struct ProbeSummary::Line {
  struct Wording {
    std::string text;
    bool held_out = false;
    ProbeGroup::Case said;
  };

  std::string status;
  std::string cause;  // unless probed
  std::string relation;
  std::optional<bool> known;
  std::vector<Wording> wordings;

  Line(const json& line, const Reader& read) : status(read.text(line, "status")) {
    if (status == "skipped" || status == "failed") {
      cause = read.text(line, "cause");
      return;
    }
    if (status != "probed") read.refuse("status", &line["status"], "\"probed\", \"skipped\" or \"failed\"");
    const auto* name = value_at(line, "fact.relation");
    if (name != nullptr && !name->is_null() && !name->is_string())
      read.refuse("fact.relation", name, "a string or null");
    relation = name != nullptr && name->is_string() ? name->get<std::string>() : kNoRelation;
    const auto subject = read.text(line, "subject");
    for (const auto& wording : read.list(line, "wordings")) {
      wordings.push_back({wording_of(read.text(wording, "prompt"), subject, read.span(wording, "subject_span")),
                          read.flag(wording, "held_out"),
                          {read.flag(wording, "said"), read.probability(wording, "probability")}});
    }
    const bool is_known = read.flag(line, "known");
    if (read.count(line, "known_by.wordings") <= static_cast<std::int64_t>(wordings.size())) known = is_known;
  }
};

Interval wilson_interval(double p, double n) {
  constexpr double kZ = 1.959963984540054;  // 97.5 % of the normal distribution lie below
  if (!(n > 0)) return {};
  const double z2 = kZ * kZ;
  const double middle = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = kZ * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n);
  // The ends of 0 and 1 are exact; rounding would leave them a little off.
  return {p <= 0 ? 0 : middle - half, p >= 1 ? 1 : middle + half};
}

void ClusteredShare::add(std::int64_t hits, std::int64_t cases) {
  if (cases == 0) return;
  hits_ += hits;
  cases_ += cases;
  ++facts_;
  hits_squared_ += hits * hits;
  hits_times_cases_ += hits * cases;
  cases_squared_ += cases * cases;
}

double ClusteredShare::share() const {
  return static_cast<double>(hits_) / static_cast<double>(cases_);
}

double ClusteredShare::effective_cases() const {
  const auto facts = static_cast<double>(facts_), cases = static_cast<double>(cases_);
  if (hits_ == 0 || hits_ == cases_ || facts_ == cases_) return facts;
  const double p = share();
  const double squares = static_cast<double>(hits_squared_) - 2 * p * static_cast<double>(hits_times_cases_) +
                         p * p * static_cast<double>(cases_squared_);
  const double variance = squares / (cases * cases);
  // A single fact, or facts that are all alike, have no spread to learn from.
  const bool no_spread = squares <= 1e-9 * static_cast<double>(cases_squared_);
  return no_spread ? facts : std::min(cases, p * (1 - p) / variance);
}

void ProbeGroup::add(const std::vector<Case>& cases, std::optional<bool> is_known) {
  if (cases.empty()) return;
  ++facts;
  const auto n = static_cast<std::int64_t>(cases.size());
  const auto hits = std::count_if(cases.begin(), cases.end(), [](const Case& one) { return one.said; });
  for (const auto& one : cases) probability += one.probability;
  said.add(hits, n);
  if (!is_known) {
    ++too_few_wordings;
    return;
  }
  known.add(*is_known ? n : 0, n);
  known_not_said.add(*is_known ? n - hits : 0, n);
  said_not_known.add(*is_known ? 0 : hits, n);
  if (*is_known) not_said_of_known.add(n - hits, n);
}

ProbeSummary::ProbeSummary() : coverage_(std::make_unique<Coverage>()) {}
ProbeSummary::~ProbeSummary() = default;
ProbeSummary::ProbeSummary(ProbeSummary&&) noexcept = default;

void ProbeSummary::end_file(const std::string& label, bool torn) {
  coverage_->end_file();
  if (!torn) return;
  ++torn_lines_;
  warnings_.push_back(label + ": the last line is not whole and was left out: the batch is running or was stopped; " +
                      "start it again to finish it");
}

std::vector<SelectionSummary> ProbeSummary::selections() const {
  return coverage_->selections();
}

std::vector<std::string> ProbeSummary::warnings() const {
  auto all = warnings_;
  for (auto& warning : coverage_->warnings()) all.push_back(std::move(warning));
  return all;
}

void ProbeSummary::add(const json& line, std::string_view where_view) {
  const std::string where(where_view);
  const Reader read{where};
  if (!line.is_object()) throw Error(where + ": expected an object, found " + shown(line, kShownBytes));
  const auto schema = read.text(line, "schema");
  if (schema == "rometrace/batch/1") {
    if (read.text(line, "command") != "probe") {
      read.refuse("command", &line["command"], "\"probe\"; results of probes and traces are summarised apart");
    }
    model_.check(line, where);
    refuse_other_settings(line, where);
    coverage_->begin(line, where);
    keep_settings(line, where);
    return;
  }
  if (schema != "rometrace/probe/1") {
    read.refuse("schema", &line["schema"], "\"rometrace/probe/1\"; give results that --probe wrote");
  }
  const Line record(line, read);
  model_.check(line, where);
  refuse_other_settings(line, where);
  coverage_->add(line, where);
  keep_settings(line, where);
  ++records_;
  ++status_[record.status];
  if (record.status == "probed") {
    add_fact(record);
  } else {
    ++causes_[record.cause];
  }
}

json ProbeSummary::setting(std::string_view path) const {
  const auto found = settings_.find(path);
  return found == settings_.end() ? json() : found->second.value;
}

void ProbeSummary::refuse_other_settings(const json& line, const std::string& where) const {
  for (const auto& [path, setting] : settings_) {
    const auto* value = value_at(line, path);
    if (value == nullptr || *value == setting.value) continue;
    throw Error(where + ": " + path + " is " + shown(*value, kShownBytes) + "; expected " +
                shown(setting.value, kShownBytes) + " as in " + setting.where +
                "; summarise results of different settings apart");
  }
}

void ProbeSummary::keep_settings(const json& line, const std::string& where) {
  for (const std::string_view path : kAgree) {
    if (const auto* value = value_at(line, path)) settings_.try_emplace(std::string(path), Setting{*value, where});
  }
}

void ProbeSummary::add_fact(const Line& line) {
  std::vector<ProbeGroup::Case> other, held_out;
  auto& relation = relations_[line.relation];
  for (const auto& wording : line.wordings) {
    (wording.held_out ? held_out : other).push_back(wording.said);
    const auto known = relation.index.find({wording.held_out, wording.text});
    if (known == relation.index.end() && relation.wordings.size() >= kMostWordings) {
      ++relation.pooled;
      continue;
    }
    if (known == relation.index.end()) {
      relation.index.emplace(std::pair(wording.held_out, wording.text), relation.wordings.size());
      relation.wordings.push_back({wording.text, wording.held_out, {}});
    }
    const auto place = known == relation.index.end() ? relation.wordings.size() - 1 : known->second;
    relation.wordings[place].group.add({wording.said}, line.known);
  }
  const std::vector own = {line.wordings.front().said};
  for (ProbeRelation* part : {&overall_, static_cast<ProbeRelation*>(&relation)}) {
    part->facts.add(own, line.known);
    part->other.add(other, line.known);
    part->held_out.add(held_out, line.known);
  }
}

std::string wording_of(std::string_view prompt, std::string_view subject, std::optional<ByteRange> place) {
  if (!place || prompt.substr(std::min(place->begin, prompt.size()), place->size()) != subject) {
    const auto begin = subject.empty() ? std::string_view::npos : prompt.find(subject);
    if (begin == std::string_view::npos) return std::string(prompt);
    place = ByteRange{begin, begin + subject.size()};
  }
  return std::string(prompt.substr(0, place->begin)) + "{}" + std::string(prompt.substr(place->end));
}

}  // namespace rometrace
