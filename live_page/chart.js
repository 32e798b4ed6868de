// NiceGUI's chart, with its options as JSON, which can also be removed before it is drawn, such as when a visitor leaves
// a page at once. The charts of a group have a crosshair in common.
import { echarts } from "nicegui-echart";
import echart from "nicegui-echart-component/echart.js";

const { options: _, ...props } = echart.props;

export default {
  ...echart,
  props: { ...props, drawing: String, group: String },
  computed: {
    options() {
      return JSON.parse(this.drawing);
    },
  },
  async mounted() {
    await echart.mounted.call(this);
    if (this.isRemoved) {
      this.chart.dispose();
      this.resizeObserver.disconnect();
    } else if (this.group) {
      this.chart.group = this.group;
      echarts.connect(this.group);
    }
  },
  beforeUnmount() {
    this.isRemoved = true;
    this.chart?.dispose();
  },
};
