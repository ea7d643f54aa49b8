#include "report/palette.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace rometrace {

namespace {

struct Rgb {
  double red;
  double green;
  double blue;
};

constexpr std::size_t kAnchors = 5;
constexpr std::size_t kSteps = 9;

/// One hue, light to dark: 24-bit anchors to interpolate between, and steps of the 256-colour palette.
struct Ramp {
  std::array<Rgb, kAnchors> anchors;
  std::array<int, kSteps> palette;
  double dark_from;  ///< shade from which white text is easier to read than black
};

constexpr Ramp kPurple = {{{{240, 237, 247}, {205, 197, 229}, {156, 140, 203}, {108, 76, 166}, {58, 12, 112}}},
                          {255, 189, 183, 141, 98, 97, 91, 55, 54},
                          0.44};
constexpr Ramp kGreen = {{{{234, 245, 234}, {190, 224, 190}, {120, 186, 127}, {42, 134, 72}, {0, 68, 32}}},
                         {255, 194, 151, 114, 77, 71, 34, 28, 22},
                         0.68};
constexpr Ramp kRed = {{{{250, 236, 231}, {245, 196, 180}, {236, 132, 109}, {200, 52, 47}, {106, 4, 20}}},
                       {255, 224, 217, 210, 203, 167, 160, 124, 88},
                       0.6};
constexpr Ramp kOrange = {{{{253, 240, 226}, {250, 208, 162}, {245, 158, 84}, {205, 92, 14}, {110, 42, 2}}},
                          {255, 223, 222, 215, 208, 172, 166, 130, 94},
                          0.74};
constexpr Ramp kTeal = {{{{232, 245, 246}, {178, 224, 226}, {98, 183, 188}, {20, 126, 134}, {0, 64, 72}}},
                        {255, 152, 116, 80, 73, 37, 30, 24, 23},
                        0.69};
constexpr Ramp kPink = {{{{250, 235, 243}, {246, 190, 216}, {236, 122, 175}, {190, 30, 120}, {96, 0, 66}}},
                        {255, 225, 218, 212, 205, 169, 162, 125, 89},
                        0.62};
constexpr Ramp kBlue = {{{{234, 241, 250}, {190, 212, 240}, {120, 166, 220}, {44, 104, 184}, {8, 44, 100}}},
                        {255, 189, 153, 117, 75, 69, 33, 26, 18},
                        0.65};

const Ramp& ramp_of(Kind kind) {
  switch (kind) {
    case Kind::kMlp:
      return kGreen;
    case Kind::kAttn:
      return kRed;
    case Kind::kHead:
      return kOrange;
    case Kind::kStateMlpSevered:
      return kTeal;
    case Kind::kStateAttnSevered:
      return kPink;
    case Kind::kKnockout:
      return kBlue;
    case Kind::kState:
      break;
  }
  return kPurple;
}

Rgb interpolate(const Ramp& ramp, double shade) {
  const double position = shade * static_cast<double>(kAnchors - 1);
  const auto lower = std::min(static_cast<std::size_t>(position), kAnchors - 2);
  const double weight = position - static_cast<double>(lower);
  const Rgb& a = ramp.anchors[lower];
  const Rgb& b = ramp.anchors[lower + 1];
  return {std::lerp(a.red, b.red, weight), std::lerp(a.green, b.green, weight), std::lerp(a.blue, b.blue, weight)};
}

std::string digits(double channel) {
  return std::to_string(std::lround(channel));
}

}  // namespace

std::string cell_color(Kind kind, double shade, bool true_color) {
  const double clamped = std::clamp(shade, 0.0, 1.0);
  const std::string foreground = clamped < ramp_of(kind).dark_from ? "38;5;235" : "38;5;231";
  if (true_color) {
    const Rgb color = interpolate(ramp_of(kind), clamped);
    return "\x1b[" + foreground + ";48;2;" + digits(color.red) + ';' + digits(color.green) + ';' + digits(color.blue) +
           'm';
  }
  const auto step = static_cast<std::size_t>(std::lround(clamped * static_cast<double>(kSteps - 1)));
  return "\x1b[" + foreground + ";48;5;" + std::to_string(ramp_of(kind).palette[step]) + 'm';
}

}  // namespace rometrace
