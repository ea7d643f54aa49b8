#include "model/pickle.hpp"

#include <array>
#include <map>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/as_text.hpp"
#include "text/little_endian.hpp"

// The opcodes are those of Python's module pickletools, which describes each. A pickle is a program for a machine with
// a stack, marks in it, and a memo of numbered values.

namespace rometrace {
namespace {

constexpr std::size_t kMaxValues = std::size_t{1} << 21U;
constexpr std::size_t kMaxSteps = std::size_t{1} << 24U;
constexpr std::size_t kMaxItems = std::size_t{1} << 24U;
constexpr std::uint64_t kOldestProtocol = 2;
constexpr std::uint64_t kNewestProtocol = 5;

enum class Opcode : unsigned char {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kPopMark = '1',
  kDup = '2',
  kBinFloat = 'G',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kProto = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kLong4 = 0x8b,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

/// Names of the other opcodes, for the refusal.
constexpr std::array<std::pair<unsigned char, const char*>, 26> kRefusedOpcodes{{
    {'F', "FLOAT"},
    {'I', "INT"},
    {'L', "LONG"},
    {'P', "PERSID"},
    {'S', "STRING"},
    {'V', "UNICODE"},
    {'d', "DICT"},
    {'g', "GET"},
    {'i', "INST"},
    {'l', "LIST"},
    {'o', "OBJ"},
    {'p', "PUT"},
    {0x81, "NEWOBJ"},
    {0x82, "EXT1"},
    {0x83, "EXT2"},
    {0x84, "EXT4"},
    {0x8f, "EMPTY_SET"},
    {0x90, "ADDITEMS"},
    {0x91, "FROZENSET"},
    {0x92, "NEWOBJ_EX"},
    {0x96, "BYTEARRAY8"},
    {0x97, "NEXT_BUFFER"},
    {0x98, "READONLY_BUFFER"},
    {'\0', "NUL"},
    {'\n', "a line's end"},
    {' ', "a space"},
}};

std::string opcode_label(unsigned char code) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string label = std::string("0x") + kHex[code >> 4U] + kHex[code & 15U];
  for (const auto& [refused, name] : kRefusedOpcodes) {
    if (refused == code) label += std::string(" (") + name + ")";
  }
  return label;
}

}  // namespace

std::string describe(const PickleValue& value) {
  switch (value.kind) {
    case PickleKind::kNone:
      return "None";
    case PickleKind::kBool:
      return value.integer != 0 ? "True" : "False";
    case PickleKind::kInteger:
      return "the number " + std::to_string(value.integer);
    case PickleKind::kLargeInteger:
      return "a number of " + std::to_string(value.text.size()) + " bytes";
    case PickleKind::kFloat:
      return "a floating-point number";
    case PickleKind::kText:
      return "the text " + in_quotes(value.text);
    case PickleKind::kBytes:
      return "bytes";
    case PickleKind::kTuple:
      return "a tuple of " + std::to_string(value.items.size());
    case PickleKind::kList:
      return "a list";
    case PickleKind::kDict:
      return "a dictionary";
    case PickleKind::kGlobal:
      return one_line(std::string(value.text) + "." + std::string(value.name));
    case PickleKind::kCall:
      return "a call of " + describe(*value.items.front());
    case PickleKind::kPersistent:
      return "a storage";
  }
  return "a value";
}

class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> bytes, const std::string& where, IsKnownGlobal is_known)
      : bytes_(bytes), where_(where), is_known_(is_known) {}

  Pickle run() {
    for (std::size_t steps = 0; step(); ++steps) {
      if (steps == kMaxSteps) refuse("has more than " + std::to_string(kMaxSteps) + " opcodes");
    }
    pickle_.root_ = pop();
    pickle_.length_ = at_;
    return std::move(pickle_);
  }

 private:
  [[noreturn]] void refuse(const std::string& complaint) const {
    throw Error(where_ + ": pickle, byte " + std::to_string(opcode_at_) + ": " + complaint);
  }

  /// Runs one opcode; false for the last.
  bool step() {
    opcode_at_ = at_;
    const auto code = static_cast<Opcode>(take_number(1));
    if (code == Opcode::kStop) return false;
    if (!run_constant(code) && !run_memo(code) && !run_container(code) && !run_object(code)) {
      refuse("opcode " + opcode_label(static_cast<unsigned char>(code)) +
             " is not one that a file of tensors needs; nothing was run");
    }
    return true;
  }

  // Each of the next four runs the opcodes of its kind, and says whether this was one.

  bool run_constant(Opcode code) {
    switch (code) {
      case Opcode::kNone:
        return add({PickleKind::kNone});
      case Opcode::kNewTrue:
        return add({PickleKind::kBool, 1});
      case Opcode::kNewFalse:
        return add({PickleKind::kBool, 0});
      case Opcode::kBinInt:
        return add({PickleKind::kInteger, static_cast<std::int32_t>(take_number(4))});
      case Opcode::kBinInt1:
        return add({PickleKind::kInteger, static_cast<std::int64_t>(take_number(1))});
      case Opcode::kBinInt2:
        return add({PickleKind::kInteger, static_cast<std::int64_t>(take_number(2))});
      case Opcode::kLong1:
        return add_long(take_sized(1));
      case Opcode::kLong4:
        return add_long(take_sized(4));
      case Opcode::kBinFloat:
        take(8);
        return add({PickleKind::kFloat});
      case Opcode::kShortBinString:  // Python 2's str, which is text wherever torch.save wrote it
      case Opcode::kShortBinUnicode:
        return add({PickleKind::kText, 0, take_sized(1)});
      case Opcode::kBinString:
      case Opcode::kBinUnicode:
        return add({PickleKind::kText, 0, take_sized(4)});
      case Opcode::kBinUnicode8:
        return add({PickleKind::kText, 0, take_sized(8)});
      case Opcode::kShortBinBytes:
        return add({PickleKind::kBytes, 0, take_sized(1)});
      case Opcode::kBinBytes:
        return add({PickleKind::kBytes, 0, take_sized(4)});
      case Opcode::kBinBytes8:
        return add({PickleKind::kBytes, 0, take_sized(8)});
      default:
        return false;
    }
  }

  bool run_memo(Opcode code) {
    switch (code) {
      case Opcode::kProto:
        check_protocol(take_number(1));
        break;
      case Opcode::kFrame:
        if (take_number(8) > bytes_.size() - at_) refuse_cut_short();
        break;
      case Opcode::kBinPut:
        put(take_number(1));
        break;
      case Opcode::kLongBinPut:
        put(take_number(4));
        break;
      case Opcode::kMemoize:
        put(memo_.size());
        break;
      case Opcode::kBinGet:
        push(get(take_number(1)));
        break;
      case Opcode::kLongBinGet:
        push(get(take_number(4)));
        break;
      case Opcode::kDup:
        push(&top());
        break;
      case Opcode::kPop:
        pop();
        break;
      case Opcode::kPopMark:
        pop_to_mark();
        break;
      case Opcode::kMark:
        if (marks_.size() == kMaxValues) refuse("has more than " + std::to_string(kMaxValues) + " marks");
        marks_.push_back(stack_.size());
        break;
      default:
        return false;
    }
    return true;
  }

  bool run_container(Opcode code) {
    switch (code) {
      case Opcode::kEmptyDict:
        return add({PickleKind::kDict});
      case Opcode::kEmptyList:
        return add({PickleKind::kList});
      case Opcode::kEmptyTuple:
        return add({PickleKind::kTuple});
      case Opcode::kTuple:
        return add_tuple(pop_to_mark());
      case Opcode::kTuple1:
        return add_tuple(pop_last(1));
      case Opcode::kTuple2:
        return add_tuple(pop_last(2));
      case Opcode::kTuple3:
        return add_tuple(pop_last(3));
      case Opcode::kAppend:
        extend(PickleKind::kList, pop_last(1));
        return true;
      case Opcode::kAppends:
        extend(PickleKind::kList, pop_to_mark());
        return true;
      case Opcode::kSetItem:
        extend(PickleKind::kDict, pop_last(2));
        return true;
      case Opcode::kSetItems:
        extend(PickleKind::kDict, pop_to_mark());
        return true;
      default:
        return false;
    }
  }

  bool run_object(Opcode code) {
    switch (code) {
      case Opcode::kGlobal: {
        const std::string_view module = take_line();
        return add_global(module, take_line());
      }
      case Opcode::kStackGlobal: {
        const PickleValue& name = *pop();
        const PickleValue& module = *pop();
        if (name.kind != PickleKind::kText || module.kind != PickleKind::kText) {
          refuse("refers to " + describe(module) + " and " + describe(name) + "; expected a module and a name in it");
        }
        return add_global(module.text, name.text);
      }
      case Opcode::kReduce: {
        const PickleValue* arguments = pop();
        return add_call(pop(), arguments);
      }
      case Opcode::kBuild:
        build();
        return true;
      case Opcode::kBinPersId: {
        PickleValue value{PickleKind::kPersistent};
        value.items.push_back(pop());
        return add(std::move(value));
      }
      default:
        return false;
    }
  }

  // Reading

  [[noreturn]] void refuse_cut_short() const { refuse("cut short; get the file again"); }

  std::span<const std::byte> take(std::uint64_t length) {
    if (length > bytes_.size() - at_) refuse_cut_short();
    const std::span<const std::byte> taken = bytes_.subspan(at_, length);
    at_ += length;
    return taken;
  }

  std::uint64_t take_number(std::size_t width) { return little_endian(take(width)); }

  /// What follows its own length, which is a number of `width` bytes.
  std::string_view take_sized(std::size_t width) { return as_text(take(take_number(width))); }

  std::string_view take_line() {
    const std::string_view rest = as_text(bytes_.subspan(at_));
    const std::size_t length = rest.find('\n');
    if (length == std::string_view::npos) refuse_cut_short();
    at_ += length + 1;
    return rest.substr(0, length);
  }

  void check_protocol(std::uint64_t protocol) const {
    if (protocol < kOldestProtocol || protocol > kNewestProtocol) {
      refuse("is of protocol " + std::to_string(protocol) + "; expected " + std::to_string(kOldestProtocol) + " to " +
             std::to_string(kNewestProtocol));
    }
  }

  // Stack and memo. A value below the last mark is out of reach, as in Python.

  void push(PickleValue* value) {
    if (stack_.size() == kMaxValues) refuse("puts more than " + std::to_string(kMaxValues) + " values on its stack");
    stack_.push_back(value);
  }

  bool add(PickleValue value) {
    if (pickle_.values_.size() == kMaxValues) refuse("has more than " + std::to_string(kMaxValues) + " values");
    push(&pickle_.values_.emplace_back(std::move(value)));
    return true;
  }

  PickleValue& top() const {
    if (stack_.size() == (marks_.empty() ? 0 : marks_.back())) refuse("takes a value where none is left");
    return *stack_.back();
  }

  PickleValue* pop() {
    PickleValue* value = &top();
    stack_.pop_back();
    return value;
  }

  using Items = std::vector<const PickleValue*>;

  Items pop_last(std::size_t count) {
    Items items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    return items;
  }

  Items pop_to_mark() {
    if (marks_.empty()) refuse("looks for a mark where none is left");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    Items items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }

  void put(std::uint64_t index) {
    memo_[index] = &top();
    if (memo_.size() > kMaxValues) refuse("memorises more than " + std::to_string(kMaxValues) + " values");
  }

  PickleValue* get(std::uint64_t index) const {
    const auto found = memo_.find(index);
    if (found == memo_.end()) refuse("asks for value " + std::to_string(index) + ", which was not memorised");
    return found->second;
  }

  // Values

  bool add_long(std::string_view bytes) {
    if (bytes.size() > 8) return add({PickleKind::kLargeInteger, 0, bytes});
    std::uint64_t number = little_endian(std::as_bytes(std::span(bytes)));
    const bool is_negative = !bytes.empty() && (static_cast<unsigned char>(bytes.back()) & 0x80U) != 0;
    if (is_negative && bytes.size() < 8) number |= ~std::uint64_t{0} << 8 * bytes.size();
    return add({PickleKind::kInteger, static_cast<std::int64_t>(number)});
  }

  bool add_tuple(Items items) {
    PickleValue tuple{PickleKind::kTuple};
    tuple.items = std::move(items);
    return add(std::move(tuple));
  }

  void append(PickleValue& container, const Items& items) {
    item_count_ += items.size();
    if (item_count_ > kMaxItems) {
      refuse("puts more than " + std::to_string(kMaxItems) + " values into its lists and dictionaries");
    }
    container.items.insert(container.items.end(), items.begin(), items.end());
  }

  void extend(PickleKind kind, const Items& items) {
    PickleValue& container = top();
    if (container.kind != kind) refuse("adds to " + describe(container) + "; expected a list or a dictionary");
    if (kind == PickleKind::kDict && items.size() % 2 != 0) refuse("adds a key without a value");
    append(container, items);
  }

  bool add_global(std::string_view module, std::string_view name) {
    if (!is_known_(module, name)) {
      refuse("refers to " + in_quotes(std::string(module) + "." + std::string(name)) +
             ", which is no part of a file of tensors; nothing was run");
    }
    return add({PickleKind::kGlobal, 0, module, name});
  }

  bool add_call(const PickleValue* callable, const PickleValue* arguments) {
    if (callable->kind != PickleKind::kGlobal || arguments->kind != PickleKind::kTuple) {
      refuse("calls " + describe(*callable) + " with " + describe(*arguments) + "; nothing was run");
    }
    if (callable->text == "collections" && callable->name == "OrderedDict") return add_ordered_dict(*arguments);
    PickleValue call{PickleKind::kCall};
    call.items = {callable, arguments};
    return add(std::move(call));
  }

  /// Python 3 makes an empty one and sets its items, Python 2 makes it from a list of pairs.
  bool add_ordered_dict(const PickleValue& arguments) {
    PickleValue dict{PickleKind::kDict};
    if (arguments.items.size() > 1 || (!arguments.items.empty() && arguments.items[0]->kind != PickleKind::kList)) {
      refuse("makes a collections.OrderedDict from " + describe(arguments) + "; expected a list of pairs");
    }
    if (!arguments.items.empty()) {
      for (const PickleValue* pair : arguments.items[0]->items) {
        if ((pair->kind != PickleKind::kList && pair->kind != PickleKind::kTuple) || pair->items.size() != 2) {
          refuse("makes a collections.OrderedDict with " + describe(*pair) + "; expected pairs");
        }
        append(dict, pair->items);
      }
    }
    return add(std::move(dict));
  }

  /// An OrderedDict's attributes: PyTorch's state dicts have `_metadata`, versions of modules, which no tensor needs.
  void build() {
    const PickleValue& state = *pop();
    if (top().kind != PickleKind::kDict || state.kind != PickleKind::kDict) {
      refuse("gives " + describe(top()) + " attributes from " + describe(state) + "; expected two dictionaries");
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& where_;
  IsKnownGlobal is_known_;
  std::size_t at_ = 0;
  std::size_t opcode_at_ = 0;
  std::vector<PickleValue*> stack_;
  std::vector<std::size_t> marks_;
  std::size_t item_count_ = 0;
  std::map<std::uint64_t, PickleValue*> memo_;  // not hashed: the file chooses the numbers
  Pickle pickle_;
};

Pickle Pickle::read(std::span<const std::byte> bytes, const std::string& where, IsKnownGlobal is_known) {
  return PickleMachine(bytes, where, is_known).run();
}

}  // namespace rometrace
