#include "rometrace/report/probe_text.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

#include "report/display_text.hpp"
#include "report/edits_text.hpp"
#include "report/table_text.hpp"

namespace rometrace {
namespace {

constexpr int kNarrowestTable = 72;
constexpr int kWidestName = 60;
constexpr int kFactsColumns = 7;
constexpr int kShareColumns = 12;           // "99.1-100.0" with a space before it at least
constexpr int kPlainColumns = 8;            // "100.0", and its heading
constexpr std::size_t kWordingsShown = 12;  // of each relation

/// In percent with one digit: "100.0". It never rounds to a bound that it does not reach: 99.97 is "99.9".
std::string share_in_percent(double share) {
  if (!std::isfinite(share)) return "-";
  auto tenths = std::lround(1000 * share);
  if (tenths == 1000 && share < 1) tenths = 999;
  if (tenths == 0 && share > 0) tenths = 1;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10);
}

std::string interval_of(const ClusteredShare& share) {
  if (share.cases() == 0) return "";
  const auto interval = share.interval();
  return share_in_percent(interval.low) + "-" + share_in_percent(interval.high);
}

std::string plural(std::int64_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

class Table {
 public:
  explicit Table(const TerminalStyle& style) : style_(style), columns_(std::max(kNarrowestTable, style.columns)) {}

  std::string prose(const std::string& text) const { return wrap(text, std::min(columns_, 100), 2); }

  /// The heading of rows that group() makes.
  std::string header(std::string_view name) const {
    return line(name, "facts", kShares, {"said", "known", "known,", "said,"}) +
           line("", "", kShares, {"", "", "not said", "not known"});
  }

  /// Two lines: shares, and their intervals below.
  std::string group(std::string_view name, const ProbeGroup& group) const {
    std::vector<std::string> values, intervals;
    for (const auto* share : {&group.said, &group.known, &group.known_not_said, &group.said_not_known}) {
      values.push_back(share_in_percent(share->share()));
      intervals.push_back(interval_of(*share));
    }
    return line(name, std::to_string(group.facts), kShares, values) + line("", "", kShares, intervals);
  }

  /// The heading of rows that wording() makes.
  std::string wordings_header() const {
    return line("wording (*: held out)", "facts", kWording, {"said", "", "known,", "said,"}) +
           line("", "", kWording, {"", "", "not said", "not known"});
  }

  /// One line, with the interval of what is said.
  std::string wording(const ProbeWordingGroup& wording) const {
    const auto& group = wording.group;
    return line((wording.held_out ? "* " : "  ") + wording.text, std::to_string(group.facts), kWording,
                {share_in_percent(group.said.share()), interval_of(group.said),
                 share_in_percent(group.known_not_said.share()), share_in_percent(group.said_not_known.share())});
  }

 private:
  using Widths = std::vector<int>;
  inline static const Widths kShares = {kShareColumns, kShareColumns, kShareColumns, kShareColumns};
  inline static const Widths kWording = {kPlainColumns, kShareColumns, kPlainColumns + 2, kPlainColumns + 2};

  std::string line(std::string_view name, std::string_view facts, const Widths& widths,
                   const std::vector<std::string>& cells) const {
    int room = columns_ - kFactsColumns;
    for (const int width : widths) room -= width;
    room = std::min(room, kWidestName);
    const auto label = display_head(name, room, {.unicode = style_.unicode});
    std::string result = label.text + std::string(static_cast<std::size_t>(room - label.columns), ' ');
    result += right(facts, kFactsColumns);
    for (std::size_t i = 0; i < cells.size(); ++i) result += right(cells[i], widths[i]);
    result.erase(result.find_last_not_of(' ') + 1);
    return result + "\n";
  }

  const TerminalStyle& style_;
  int columns_;
};

std::string counts_of(const ProbeSummary& summary) {
  std::string text = plural(summary.records(), "record") + ":";
  const auto& status = summary.status();
  for (const auto* name : {"probed", "skipped", "failed"}) {
    const auto found = status.find(name);
    if (found != status.end()) text += (text.ends_with(':') ? " " : ", ") + std::to_string(found->second) + " " + name;
  }
  std::string causes;
  for (const auto& [cause, count] : summary.causes()) {
    causes += (causes.empty() ? "" : ", ") + cause + " " + std::to_string(count);
  }
  return text + (causes.empty() ? "" : " (" + causes + ")") + ".";
}

std::string introduction(const ProbeSummary& summary, const Table& table, const DisplayStyle& display_style) {
  std::string text = counts_of(summary);
  const auto rule = summary.setting("known_by.rule");
  if (rule.is_string()) text += " Known by " + rule.get<std::string>() + ", over all wordings of a fact.";
  const auto few = summary.overall().facts.too_few_wordings;
  if (few > 0) text += " " + plural(few, "fact") + " with too few wordings for that: only \"said\" counts them.";
  if (const auto edits = edits_text(summary.model()); !edits.empty()) text += " The model is " + edits + ".";
  text += " In percent, with Wilson's 95 % intervals.";
  return table.prose(display(text, display_style).text);
}

std::vector<const ProbeWordingGroup*> wordings_to_show(const ProbeSummary::Relation& relation) {
  std::vector<const ProbeWordingGroup*> shown;
  for (const auto& wording : relation.wordings) shown.push_back(&wording);
  if (shown.size() > kWordingsShown) {
    const auto commoner = [](const auto* a, const auto* b) { return a->group.facts > b->group.facts; };
    std::stable_sort(shown.begin(), shown.end(), commoner);
    shown.resize(kWordingsShown);
  }
  // Others first, then the held-out ones.
  std::stable_partition(shown.begin(), shown.end(), [](const auto* wording) { return !wording->held_out; });
  return shown;
}

std::string wordings_of(const ProbeSummary::Relation& relation, const Table& table) {
  std::string text;
  const auto shown = wordings_to_show(relation);
  for (const auto* wording : shown) text += table.wording(*wording);
  const auto hidden = relation.wordings.size() - shown.size();
  if (hidden > 0) text += table.prose("  and " + plural(static_cast<std::int64_t>(hidden), "rarer wording"));
  return text;
}

}  // namespace

std::string render_probe_summary(const ProbeSummary& summary, const TerminalStyle& style) {
  constexpr int kLongestName = 60;
  const Table table(style);
  const DisplayStyle display_style{.unicode = style.unicode};
  std::string result = introduction(summary, table, display_style);
  for (const auto& warning : summary.warnings()) {
    result += table.prose(display("Warning: " + warning, display_style).text);
  }
  const auto& overall = summary.overall();
  if (overall.facts.facts == 0) return result + "Nothing was probed.\n";

  const auto relations = [&](const char* title, const ProbeGroup ProbeRelation::*part) {
    result += "\n" + table.header(title);
    for (const auto& [name, relation] : summary.relations()) {
      if ((relation.*part).facts > 0) result += table.group(name, relation.*part);
    }
    result += table.group("all", overall.*part);
  };
  relations("in the fact's own prompt", &ProbeRelation::facts);
  if (overall.held_out.facts > 0) {
    relations("in held-out wordings", &ProbeRelation::held_out);
    result += table.group("all, in other wordings", overall.other);
  }

  result += "\n" + table.wordings_header();
  for (const auto& [name, relation] : summary.relations()) {
    result += display_head(name, kLongestName, display_style).text + "\n" + wordings_of(relation, table);
  }
  return result;
}

}  // namespace rometrace
