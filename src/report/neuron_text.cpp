#include "report/neuron_text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "report/display_text.hpp"
#include "report/finding.hpp"
#include "report/palette.hpp"

namespace rometrace {
namespace {

/// A column of a table; of two that do not fit the one of the larger `rank` goes first.
struct TableColumn {
  std::string title;
  int rank = 0;
  std::vector<DisplayText> cells = {};
  bool to_the_left = false;
  int least = 0;  ///< columns with which it may stand, where it can be cut; 0: all of it

  int width() const {
    int widest = columns_of(title);
    for (const auto& cell : cells) widest = std::max(widest, cell.columns);
    return widest;
  }
  int needed() const { return least > 0 ? std::min(least, width()) : width(); }
};

std::string blanks(int count) {
  return std::string(static_cast<std::size_t>(std::max(0, count)), ' ');
}

DisplayText plain(const std::string& text) {
  return {text, columns_of(text)};
}

/// Lines of the columns that fit, with their titles above them. What can be cut has been cut before.
std::string table_of(const std::vector<TableColumn>& columns, int gap) {
  std::string text;
  const auto rows = static_cast<std::ptrdiff_t>(columns.front().cells.size());
  for (std::ptrdiff_t row = -1; row < rows; ++row) {
    std::string line;
    for (const auto& column : columns) {
      const auto cell = row < 0 ? plain(column.title) : column.cells[static_cast<std::size_t>(row)];
      const auto padding = blanks(column.width() - cell.columns);
      line += (&column == &columns.front() ? "" : blanks(gap)) +
              (column.to_the_left ? cell.text + padding : padding + cell.text);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

/// The neurons of one record.
class NeuronText {
 public:
  NeuronText(const TraceRecord& record, const TerminalStyle& style)
      : record_(record),
        trace_(record.trace),
        neurons_(record.trace.neurons.value()),
        style_(style),
        noising_(record.options.direction == Direction::kNoising) {}

  std::string render() const {
    std::string text = heading("neuron", title());
    if (!neurons_.effects.empty()) text += effects();
    for (const auto position : positions_by_layer()) text += "\n" + layers(position);
    return text;
  }

  std::vector<std::string> sentences() const {
    std::vector<std::string> all;
    if (!neurons_.effects.empty()) all.push_back(strongest());
    for (const auto& half : neurons_.half) {
      if (!half.layer) all.push_back(half_in_words(half));
    }
    return all;
  }

 private:
  using Orders = NeuronControl::Order;

  double effect_of(const RunScore& run) const {
    return noising_ ? trace_.high_score - run.score : run.score - trace_.low_score;
  }

  std::string heading(const std::string& name, const std::string& rest) const {
    const auto text = wrap(name + ": " + rest, style_.columns);
    return style_.color ? kBold + text.substr(0, name.size()) + kResetColor + text.substr(name.size()) : text;
  }

  std::string quoted(std::int64_t position) const {
    return quoted_token(record_.texts.prompt[static_cast<std::size_t>(position)], style_);
  }

  std::string place(std::int64_t position) const {
    return quoted(position) + " (" + std::string(role_of(record_, position)) + ")";
  }

  std::string title() const {
    const auto& positions = neurons_.positions;
    const auto at = positions.size() == 1
                        ? quoted(positions.front()) + " (position " + std::to_string(positions.front()) + ")"
                        : "one of " + std::to_string(positions.size()) + " positions";
    const auto corruption = corruption_words(record_, style_);
    const auto corrupted = "the " + std::string(corruption.what) + " is " + corruption.how;
    return (noising_ ? "one MLP neuron corrupted in the clean run at " + at + ", by its value where " + corrupted +
                           ": what that takes off the probability of "
                     : "one MLP neuron restored at " + at + " where " + corrupted +
                           ": what that adds to the probability of ") +
           quoted_answer(record_, style_) + ", in percent. " + choice() + ".";
  }

  /// Which neurons these are, as a sentence.
  std::string choice() const {
    const auto count = std::ssize(neurons_.effects);
    if (neurons_.given) return count == 1 ? "The one that was named" : "Those that were named";
    const auto all = std::to_string(neurons_.candidates);
    if (count == neurons_.candidates) return "All " + all + " of them";
    const auto some = "The " + std::to_string(count) + " of " + all + " ";
    switch (neurons_.ranked_by.which) {
      case NeuronRule::Which::kGradient:
        return some + "that the gradient ranks first";
      case NeuronRule::Which::kIntegrated:
        return some + "that " + std::to_string(neurons_.ranked_by.steps) + " gradients on the way rank first";
      case NeuronRule::Which::kNone:
        break;
    }
    return some + "with the largest effects";
  }

  /// Digits behind the point with which the largest of these, in percent, has three or more.
  static int decimals_for(double largest) {
    constexpr int kLeast = 2, kMost = 4;
    if (!std::isfinite(largest) || largest <= 0) return kLeast;
    return std::clamp(kLeast + static_cast<int>(std::ceil(-std::log10(largest))), kLeast, kMost);
  }

  static std::string in_percent(double value, int decimals) {
    if (!std::isfinite(value)) return "?";
    std::array<char, 400> digits{};  // room for any double without an exponent
    const auto end =
        std::to_chars(digits.data(), digits.data() + digits.size(), 100 * value, std::chars_format::fixed, decimals)
            .ptr;
    std::string text(digits.data(), end);
    if (text.starts_with('-') && text.find_first_not_of("-0.") == std::string::npos) text.erase(0, 1);
    return text;
  }

  static std::string shown(double value) { return std::isfinite(value) ? probability(value) : "?"; }

  std::string effects() const {
    double largest = 0;
    bool estimates = false, errors = false;
    for (const auto& effect : neurons_.effects) {
      largest = std::max(largest, 100 * std::abs(effect_of(effect.run)));
      estimates = estimates || std::isfinite(effect.estimate);
      errors = errors || std::isfinite(effect.run.standard_error);
    }
    const int decimals = decimals_for(largest);
    const auto column = [&](const char* name, int rank, auto cell_of) {
      TableColumn made{name, rank};
      for (const auto& effect : neurons_.effects) made.cells.push_back(cell_of(effect));
      return made;
    };
    using Effect = NeuronEffect;
    std::vector<TableColumn> columns = {
        column("layer", 0, [](const Effect& effect) { return plain(std::to_string(effect.layer)); }),
        column("neuron", 0, [](const Effect& effect) { return plain(std::to_string(effect.neuron)); })};
    if (neurons_.positions.size() > 1) {
      columns.push_back(column("token", 1, [&](const Effect& effect) { return token_at(effect.position); }));
      columns.back().to_the_left = true;
    }
    columns.push_back(
        column("effect", 0, [&](const Effect& effect) { return plain(in_percent(effect_of(effect.run), decimals)); }));
    if (errors) {
      columns.push_back(column(
          "error", 3, [&](const Effect& effect) { return plain(in_percent(effect.run.standard_error, decimals)); }));
    }
    if (estimates) {
      columns.push_back(
          column("estimate", 4, [&](const Effect& effect) { return plain(in_percent(effect.estimate, decimals)); }));
    }
    columns.push_back(column("clean", 5, [](const Effect& effect) { return plain(shown(effect.clean)); }));
    columns.push_back(column("corrupted", 5, [](const Effect& effect) { return plain(shown(effect.corrupted)); }));
    columns.push_back(column("promotes", 2, [&](const Effect& effect) { return promoted(effect, kWidestTokens); }));
    columns.back().to_the_left = true;
    columns.back().least = kNarrowestTokens;
    const int gap = fit(columns);
    if (columns.back().least > 0) {
      int room = style_.columns + columns.back().width() - width_of(columns, gap, &TableColumn::width);
      room = std::max(room, kNarrowestTokens);
      for (std::size_t i = 0; i < neurons_.effects.size(); ++i) {
        columns.back().cells[i] = promoted(neurons_.effects[i], std::min(room, kWidestTokens));
      }
    }
    return table_of(columns, gap);
  }

  static int width_of(const std::vector<TableColumn>& columns, int gap, int (TableColumn::*width)() const) {
    int sum = -gap;
    for (const auto& column : columns) sum += gap + (column.*width)();
    return sum;
  }

  /// Leaves out columns until the others fit; gives the spaces between two.
  int fit(std::vector<TableColumn>& columns) const {
    constexpr int kBetween = 2;
    const auto fits = [&](int gap) { return width_of(columns, gap, &TableColumn::needed) <= style_.columns; };
    while (!fits(kBetween)) {
      int last = 0;
      for (const auto& column : columns) last = std::max(last, column.rank);
      if (last == 0) return kBetween - 1;
      std::erase_if(columns, [&](const TableColumn& column) { return column.rank == last; });
    }
    return kBetween;
  }

  DisplayText token_at(std::int64_t position) const {
    constexpr int kLongest = 12;
    return display_head(record_.texts.prompt[static_cast<std::size_t>(position)], kLongest, token_style());
  }

  DisplayStyle token_style() const { return {.unicode = style_.unicode, .visible_spaces = true}; }

  /// As many of the tokens as fit, best first; of the first what fits.
  DisplayText promoted(const NeuronEffect& effect, int room) const {
    DisplayText text;
    for (const auto& token : effect.promotes) {
      const auto found = record_.texts.of_neurons.find(token.id);
      const auto next = found == record_.texts.of_neurons.end() ? plain("#" + std::to_string(token.id))
                                                                : display(found->second, token_style());
      if (text.columns == 0) {
        text = next.columns <= room                      ? next
               : found == record_.texts.of_neurons.end() ? plain("?")
                                                         : display_head(found->second, room, token_style());
      } else if (text.columns + 1 + next.columns > room) {
        break;
      } else {
        text = {text.text + " " + next.text, text.columns + 1 + next.columns};
      }
    }
    return text;
  }

  // The set that has these numbers; none where it is not there.
  template <typename Sets, typename Set>
  static const NeuronSet* find(const Sets& sets, std::int64_t position, std::optional<std::int64_t> layer,
                               std::int64_t size, Set set_of) {
    for (const auto& each : sets) {
      const NeuronSet* set = set_of(each);
      if (set != nullptr && set->position == position && set->layer == layer && set->neurons == size) return set;
    }
    return nullptr;
  }

  const std::vector<NeuronSet>& sets_for(const NeuronHalf& half) const {
    return half.layer ? neurons_.sets_by_layer : neurons_.sets;
  }

  const NeuronSet* best_of(const NeuronHalf& half, std::int64_t size) const {
    return find(sets_for(half), half.position, half.layer, size, [](const NeuronSet& set) { return &set; });
  }

  const NeuronSet* control_of(const NeuronHalf& half, std::int64_t size, Orders order) const {
    const auto* found = find(neurons_.controls, half.position, half.layer, size, [&](const NeuronControl& control) {
      return control.order == order ? &control.set : nullptr;
    });
    return found == nullptr && size == half.candidates ? best_of(half, size) : found;  // all are all in any order
  }

  /// The size of set that is closest to the half.
  std::int64_t size_near(const NeuronHalf& half) const {
    const auto wanted = half.neurons.value_or(half.candidates);
    auto nearest = half.candidates;
    for (const auto& set : sets_for(half)) {
      if (set.position != half.position || set.layer != half.layer) continue;
      const auto here = std::llabs(set.neurons - wanted), there = std::llabs(nearest - wanted);
      if (here < there || (here == there && set.neurons < nearest)) nearest = set.neurons;
    }
    return nearest;
  }

  std::string effect_in_percent(const NeuronSet& set) const {
    const double effect = effect_of(set.run);
    return std::isfinite(effect) ? percentage(effect) : "an unknown part";
  }

  std::string verb(bool one) const {
    return noising_ ? (one ? "takes away" : "take away") : (one ? "brings back" : "bring back");
  }

  std::string strongest() const {
    const NeuronEffect* best = nullptr;
    for (const auto& effect : neurons_.effects) {
      if (std::isfinite(effect.run.score) && (best == nullptr || effect_of(effect.run) > effect_of(best->run))) {
        best = &effect;
      }
    }
    if (best == nullptr || !(effect_of(best->run) > 0)) {
      return std::string("No neuron that was run ") + (noising_ ? "takes anything away." : "brings anything back.");
    }
    return "Strongest neuron: layer " + std::to_string(best->layer) + ", neuron " + std::to_string(best->neuron) +
           " at " + place(best->position) + ": " + effect_words(record_, effect_of(best->run)) + ".";
  }

  std::string half_in_words(const NeuronHalf& half) const {
    const auto all = std::to_string(half.candidates), at = " neurons at " + place(half.position);
    const auto* whole = best_of(half, half.candidates);
    if (!half.neurons) {
      return "All " + all + at + " together " + (noising_ ? "take nothing away" : "bring nothing back") +
             (whole == nullptr ? "" : " (" + effect_in_percent(*whole) + ")") + ", so there is no half of it.";
    }
    const auto size = size_near(half);
    const bool exact = size == *half.neurons;
    const auto* best = best_of(half, size);
    auto text =
        std::to_string(*half.neurons) + " of " + all + at + " " + verb(*half.neurons == 1) + " half of what all do";
    const std::string of_all = whole == nullptr ? "" : effect_in_percent(*whole);
    if (exact && best != nullptr && whole != nullptr) {
      text += " (" + effect_in_percent(*best) + " of " + of_all + ")";
    } else if (whole != nullptr) {
      text += " (all: " + of_all + ")";
    }
    const auto count = std::to_string(size);
    std::vector<std::string> others;
    if (!exact && best != nullptr)
      others.push_back("the best " + count + " " + verb(false) + " " + effect_in_percent(*best));
    if (const auto* changed = control_of(half, size, Orders::kChange)) {
      others.push_back((size == 1 ? "the one that changes most" : "the " + count + " that change most") + " " +
                       verb(size == 1) + " " + effect_in_percent(*changed));
    }
    if (const auto* random = control_of(half, size, Orders::kRandom)) {
      others.push_back((size == 1 ? "a random one" : count + " random ones") + " " + effect_in_percent(*random));
    }
    for (std::size_t i = 0; i < others.size(); ++i) text += (i == 0 ? "; " : ", ") + others[i];
    return text + ".";
  }

  std::vector<std::int64_t> positions_by_layer() const {
    std::vector<std::int64_t> positions;
    for (const auto& half : neurons_.half) {
      if (half.layer && std::find(positions.begin(), positions.end(), half.position) == positions.end()) {
        positions.push_back(half.position);
      }
    }
    return positions;
  }

  /// How few of each layer's neurons carry half of what they all do.
  std::string layers(std::int64_t position) const {
    std::vector<TableColumn> columns = {{"layer", 0}, {"all", 0},     {"half", 0},  {"size", 1},
                                        {"best", 1},  {"changed", 2}, {"random", 3}};
    double largest = 0;
    std::int64_t candidates = 0;
    const auto percents = [&](const NeuronSet* set, int decimals) {
      return plain(set == nullptr ? "" : in_percent(effect_of(set->run), decimals));
    };
    for (const auto& half : neurons_.half) {
      if (!half.layer || half.position != position) continue;
      candidates = half.candidates;
      if (const auto* all = best_of(half, half.candidates)) {
        largest = std::max(largest, 100 * std::abs(effect_of(all->run)));
      }
    }
    const int decimals = decimals_for(largest);
    for (const auto& half : neurons_.half) {
      if (!half.layer || half.position != position) continue;
      const auto size = size_near(half);
      columns[0].cells.push_back(plain(std::to_string(*half.layer)));
      columns[1].cells.push_back(percents(best_of(half, half.candidates), decimals));
      columns[2].cells.push_back(plain(half.neurons ? std::to_string(*half.neurons) : "none"));
      columns[3].cells.push_back(plain(half.neurons ? std::to_string(size) : ""));
      columns[4].cells.push_back(half.neurons ? percents(best_of(half, size), decimals) : plain(""));
      columns[5].cells.push_back(half.neurons ? percents(control_of(half, size, Orders::kChange), decimals)
                                              : plain(""));
      columns[6].cells.push_back(half.neurons ? percents(control_of(half, size, Orders::kRandom), decimals)
                                              : plain(""));
    }
    const int gap = fit(columns);
    return heading("layers", "how many of a layer's " + std::to_string(candidates) + " neurons at " + quoted(position) +
                                 " " + verb(false) +
                                 " half of what all of them do; the best, those that change most, "
                                 "and random ones in sets of about that size, in percent.") +
           table_of(columns, gap);
  }

  static constexpr int kNarrowestTokens = 10, kWidestTokens = 40;

  const TraceRecord& record_;
  const Trace& trace_;
  const NeuronTrace& neurons_;
  const TerminalStyle& style_;
  bool noising_;
};

}  // namespace

std::string render_neurons(const TraceRecord& record, const TerminalStyle& style) {
  return NeuronText(record, style).render();
}

std::vector<std::string> neuron_sentences(const TraceRecord& record, const TerminalStyle& style) {
  if (!record.trace.neurons) return {};
  return NeuronText(record, style).sentences();
}

}  // namespace rometrace
