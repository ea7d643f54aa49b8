#include "rometrace/summary/summary_reader.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "text/json_tree.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

constexpr const char* kAdvice =
    "; expected one JSON object a line, as rometrace writes them: the file is damaged there";

[[noreturn]] void damaged(std::string_view where, const std::string& what) {
  throw DamagedLine(std::string(where) + ": " + what + kAdvice);
}

constexpr double kMostWhole = 1e6;  // layers, heads, positions

/// What a line has for the averages is in none of these, and they may be most of it.
bool is_passed_over(std::string_view name) {
  return name == "token_bytes" || name == "token_ids";
}

/// Builds the line from the parser's events. Nine tenths of a line are the grids' numbers: the scores go straight into
/// vectors, the rest of the grids nowhere. The grids of measures and other targets are the same, two levels deeper.
class LineBuilder {
 public:
  explicit LineBuilder(std::string_view where) : where_(where) {}

  SummaryLine take() {
    line_.json = tree_.take();
    for (auto& reading : line_.readings) {
      for (auto& grid : reading.grids) place_as_main(grid);
    }
    return std::move(line_);
  }

  bool null() { return mode_ == Mode::kBuild ? add(nullptr) : number(std::numeric_limits<double>::quiet_NaN()); }
  bool boolean(bool value) { return mode_ == Mode::kBuild ? add(value) : number_expected(); }
  bool number_integer(json::number_integer_t value) { return add_number(value); }
  bool number_unsigned(json::number_unsigned_t value) { return add_number(value); }
  bool number_float(json::number_float_t value, const std::string&) { return add_number(value); }
  bool string(std::string& value) {
    if (mode_ == Mode::kBuild) return add(std::move(value));
    if (mode_ == Mode::kReadings) return text_of_reading(value);
    return number_expected();
  }
  bool binary(json::binary_t&) { return false; }  // JSON text has none

  bool start_object(std::size_t) {
    deepen();
    if (mode_ == Mode::kGrid && depth_ > in_grid_depth()) return number_expected();
    if (mode_ == Mode::kReadings && depth_ == kInReading && !named_) line_.readings.emplace_back();
    return mode_ != Mode::kBuild || open(json::object());
  }

  bool start_array(std::size_t) {
    deepen();
    if (mode_ == Mode::kBuild) return open(json::array());
    if (in_positions()) return depth_ == in_grid_depth() + 1 ? begin_positions() : positions_expected();
    return !in_scores() || depth_ <= numbers_ || number_expected();
  }

  bool end_object() {
    if (in_grid() && depth_ == in_grid_depth()) end_grid();
    --depth_;
    if (mode_ == Mode::kGrid && shift_ == 2 && depth_ == kInReading) mode_ = Mode::kReadings;
    if (mode_ == Mode::kGrid && shift_ == 1 && depth_ == kInNoising) mode_ = Mode::kSkip;
    return close();
  }

  bool end_array() {
    if (in_scores() && depth_ >= in_row_depth()) depth_ == in_row_depth() ? end_row() : end_cell();
    --depth_;
    return close();
  }

  bool key(std::string& name) {
    if (depth_ == 1) begin_member(name);
    if (mode_ == Mode::kBuild) {
      tree_.name(name);
    } else if (mode_ == Mode::kReadings) {
      begin_reading_member(name);
    } else if (mode_ == Mode::kNoising) {
      if (depth_ == kInNoising && name == "grids") begin_grids(line_.noising, 1);
    } else if (mode_ == Mode::kGrid && depth_ == in_grid_depth() - 1) {
      grids_->emplace_back().kind = std::move(name);
      field_ = Field::kOther;
      numbers_ = grids_->back().kind == kHead ? in_row_depth() + 1 : in_row_depth();
      row_cells_ = told_heads_ = 0;
    } else if (mode_ == Mode::kGrid && depth_ == in_grid_depth()) {
      field_ = field_of(name);
    }
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception&) {
    damaged(where_, "byte " + std::to_string(position) + ": not JSON");
  }

 private:
  enum class Mode { kBuild, kSkip, kGrid, kReadings, kNoising };
  enum class Field { kScores, kWindow, kHeads, kPositions, kOther };
  enum class ReadingField { kHigh, kLow, kTarget, kOf, kOther };

  static constexpr std::string_view kHead = "head";  // its numbers are a level deeper

  // Depths: {"grids": {"mlp": {"scores": [[0.1, ...], ...]}}}, and of readings
  // {"measures": {"rank": {"high": 1, "grids": {"mlp": {"values": [[1, ...], ...]}}}},
  //  "other_targets": [{"high_score": 0.1, "grids": {"mlp": {"scores": [[0.1, ...], ...]}}}]},
  // and of the other direction {"noising": {"grids": {"mlp": {"scores": [[0.1, ...], ...]}}}}.
  static constexpr int kInReading = 3;
  static constexpr int kInNoising = 2;
  int in_grid_depth() const { return 3 + shift_; }
  int in_row_depth() const { return 5 + shift_; }

  bool in_grid() const { return mode_ == Mode::kGrid && !grids_->empty(); }
  bool in_scores() const { return in_grid() && depth_ > in_grid_depth() && field_ == Field::kScores; }
  bool in_positions() const { return in_grid() && depth_ > in_grid_depth() && field_ == Field::kPositions; }

  /// A member of the line.
  void begin_member(std::string_view name) {
    mode_ = Mode::kBuild;
    if (name == "grids") {
      begin_grids(line_.grids, 0);
    } else if (name == "measures" || name == "other_targets") {
      mode_ = Mode::kReadings;
      named_ = name == "measures";
    } else if (name == "noising") {
      mode_ = Mode::kNoising;
    } else if (is_passed_over(name)) {
      mode_ = Mode::kSkip;
    }
  }

  void begin_grids(std::vector<SummaryGrid>& grids, int shift) {
    mode_ = Mode::kGrid;
    grids_ = &grids;
    shift_ = shift;
    field_ = Field::kOther;
  }

  void begin_reading_member(std::string& name) {
    if (depth_ == kInReading - 1) {
      line_.readings.emplace_back().measure = std::move(name);
    } else if (depth_ == kInReading && !line_.readings.empty()) {
      reading_field_ = name == "high" || name == "high_score" ? ReadingField::kHigh
                       : name == "low" || name == "low_score" ? ReadingField::kLow
                       : name == "target"                     ? ReadingField::kTarget
                       : name == "of"                         ? ReadingField::kOf
                                                              : ReadingField::kOther;
      if (name == "grids") begin_grids(line_.readings.back().grids, 2);
    }
  }

  bool number_of_reading(double value) {
    if (depth_ != kInReading || line_.readings.empty()) return true;
    auto& reading = line_.readings.back();
    if (reading_field_ == ReadingField::kHigh) reading.high = value;
    if (reading_field_ == ReadingField::kLow) reading.low = value;
    return true;
  }

  bool text_of_reading(std::string& text) {
    if (depth_ != kInReading || line_.readings.empty()) return true;
    auto& reading = line_.readings.back();
    if (reading_field_ == ReadingField::kTarget) reading.target = std::move(text);
    if (reading_field_ == ReadingField::kOf) reading.of = std::move(text);
    return true;
  }

  /// The places of a reading's grid are those of the line's.
  void place_as_main(SummaryGrid& grid) const {
    const auto main = std::find_if(line_.grids.begin(), line_.grids.end(),
                                   [&](const SummaryGrid& other) { return other.kind == grid.kind; });
    if (main == line_.grids.end()) return;
    grid.window = main->window;
    grid.positions = main->positions;
  }

  static Field field_of(std::string_view name) {
    return name == "scores" || name == "values" ? Field::kScores
           : name == "window"                   ? Field::kWindow
           : name == "heads"                    ? Field::kHeads
           : name == "positions"                ? Field::kPositions
                                                : Field::kOther;
  }

  void deepen() {
    constexpr int kDeepest = 64;
    if (++depth_ > kDeepest) damaged(where_, "nested deeper than " + std::to_string(kDeepest) + " levels");
  }

  template <typename Number>
  bool add_number(Number value) {
    return mode_ == Mode::kBuild ? add(value) : number(static_cast<double>(value));
  }

  bool number(double value) {
    if (mode_ == Mode::kReadings) return number_of_reading(value);
    if (!in_grid()) return true;
    auto& grid = grids_->back();
    if (in_scores()) {
      if (depth_ != numbers_) return number_expected();
      grid.scores.push_back(value);
    } else if (in_positions()) {
      if (depth_ != in_grid_depth() + 1 || !is_whole(value)) return positions_expected();
      grid.positions->push_back(static_cast<std::int64_t>(value));
    } else if (depth_ == in_grid_depth() && field_ == Field::kWindow) {
      grid.window = value >= 0 && value < kMostWhole ? static_cast<std::int64_t>(value) : 0;
    } else if (depth_ == in_grid_depth() && field_ == Field::kHeads) {
      if (!is_whole(value)) damaged(where_, "\"heads\" of a grid is no whole number");
      told_heads_ = static_cast<std::int64_t>(value);
    } else if (depth_ == in_grid_depth() && field_ == Field::kPositions) {
      return positions_expected();
    }
    return true;
  }

  static bool is_whole(double value) { return value >= 0 && value < kMostWhole && value == std::floor(value); }

  bool number_expected() {
    if (mode_ == Mode::kGrid && (in_scores() || depth_ <= in_grid_depth())) {
      damaged(where_, numbers_ == in_row_depth()
                          ? "a grid is no list of rows of numbers"
                          : "the grid \"head\" is no list of rows of lists of a number for each head");
    }
    return in_positions() ? positions_expected() : true;
  }

  bool positions_expected() { damaged(where_, "\"positions\" of a grid is no list of whole numbers"); }

  bool begin_positions() {
    grids_->back().positions.emplace();
    return true;
  }

  /// The heads' scores at a layer.
  void end_cell() {
    auto& grid = grids_->back();
    const auto count = static_cast<std::int64_t>(grid.scores.size());
    ++row_cells_;
    if (grid.heads == 0) grid.heads = count;
    if (grid.heads == 0 || count != row_cells_ * grid.heads) {
      damaged(where_, "the lists of heads' scores in a grid differ in length");
    }
  }

  void end_row() {
    auto& grid = grids_->back();
    const auto count = static_cast<std::int64_t>(grid.scores.size());
    ++grid.rows;
    if (grid.rows == 1) grid.layers = count / std::max<std::int64_t>(1, grid.heads);
    if (grid.layers == 0 || count != grid.rows * grid.cells()) damaged(where_, "the rows of a grid differ in length");
  }

  void end_grid() {
    const auto& grid = grids_->back();
    if (told_heads_ == 0 || grid.rows == 0 || grid.heads == told_heads_) return;
    damaged(where_, "the grid " + in_quotes(grid.kind) + " says " + std::to_string(told_heads_) + " heads and has " +
                        std::to_string(grid.heads));
  }

  bool add(json value) {
    tree_.add(std::move(value));
    return true;
  }

  bool open(json container) {
    tree_.open(std::move(container));
    return true;
  }

  bool close() {
    if (mode_ == Mode::kBuild || depth_ == 0) tree_.close();
    return true;
  }

  std::string_view where_;
  SummaryLine line_;
  JsonTree tree_;
  Mode mode_ = Mode::kBuild;
  Field field_ = Field::kOther;
  int depth_ = 0;
  std::vector<SummaryGrid>* grids_ = nullptr;  // those at hand: the line's, or a reading's
  int shift_ = 0;                              // how much deeper they are than the line's
  ReadingField reading_field_ = ReadingField::kOther;
  bool named_ = false;           // the readings have names: measures
  int numbers_ = 0;              // depth of the scores
  std::int64_t row_cells_ = 0;   // lists of heads' scores in the grid so far
  std::int64_t told_heads_ = 0;  // the grid's "heads"; 0: none
};

SummaryLine::Type type_of(const SummaryLine& line) {
  const auto schema = line.json.find("schema");
  if (schema != line.json.end() && schema->is_string()) {
    if (*schema == "rometrace/trace/1") return SummaryLine::Type::kTrace;
    if (*schema == "rometrace/batch/1") return SummaryLine::Type::kHeader;
    if (*schema == "rometrace/probe/1") return SummaryLine::Type::kProbe;
    if (*schema == "rometrace/edited-fact/1") return SummaryLine::Type::kEdit;
  }
  const std::string found = schema == line.json.end() ? "no schema"
                            : schema->is_string()     ? "schema " + in_quotes(schema->get<std::string>())
                                                      : "a schema that is no text";
  throw Error(line.where + ": " + found +
              "; expected rometrace/trace/1, rometrace/probe/1, rometrace/edited-fact/1 or " +
              "rometrace/batch/1, as rometrace --facts and rometrace edit --each write them");
}

}  // namespace

SummaryLine parse_summary_line(std::string_view text, std::string_view where) {
  // The parser takes a zero byte for the end of the text.
  if (const auto zero = text.find('\0'); zero != std::string_view::npos) {
    damaged(where, "byte " + std::to_string(zero + 1) + ": a zero byte");
  }
  LineBuilder builder(where);
  json::sax_parse(text.begin(), text.end(), &builder);
  auto line = builder.take();
  line.where = where;
  if (!line.json.is_object()) damaged(where, "not an object");
  line.type = type_of(line);
  return line;
}

SummaryReader::SummaryReader(const std::string& name, std::stop_token stop) : lines_(name, std::move(stop)) {}

bool SummaryReader::next(SummaryLine& line) {
  while (const auto text = lines_.next()) {
    if (is_blank(*text)) continue;
    try {
      line = parse_summary_line(*text, lines_.where());
      return true;
    } catch (const DamagedLine&) {
      if (lines_.next()) throw;
      torn_ = true;
      return false;
    }
  }
  return false;
}

}  // namespace rometrace
