// NiceGUI's chart, which can also be removed before it is drawn, such as when a visitor leaves a page at once. The
// charts of a group have a crosshair in common.
import { echarts } from "nicegui-echart";
import echart from "nicegui-echart-component/echart.js";

export default {
  ...echart,
  props: { ...echart.props, group: String },
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
